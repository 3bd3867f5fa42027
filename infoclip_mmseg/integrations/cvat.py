"""An auto-annotation function of CVAT: masks of any words, drawn into a task.

    cvat-cli --server-host HOST task auto-annotate TASK --allow-unmatched-labels
        --function-module infoclip_mmseg.integrations.cvat
        -p 'classes=str:cat; dog' -p model=str:FOLDER

The names of the task's labels and the classes must be the same words (the first of a class where
it has synonyms).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from PIL import Image

from infoclip_mmseg.annotations.formats import cvat_runs
from infoclip_mmseg.annotations.regions import Region, rings
from infoclip_mmseg.apis.inferencer import DEFAULT_CONFIG
from infoclip_mmseg.integrations.loading import load_inferencer


class DetectionFunction:
    """What CVAT's SDK calls: ``spec`` and ``detect``; see ``cvat_sdk.auto_annotation``."""

    def __init__(
        self,
        classes: str,
        model: str = DEFAULT_CONFIG,
        weights: str | None = None,
        background: str | None = None,
        device: str | None = None,
    ) -> None:
        self.inferencer = load_inferencer(model, weights, device=device)
        self.classes, self.background = classes, background
        words = self.inferencer.plan(classes, background)
        self.names = [name.split(',')[0].strip() for name in words.classes]

    @property
    def spec(self) -> Any:
        """``DetectionFunctionSpec``: a label a class, numbered as the classes are."""
        from cvat_sdk import auto_annotation

        labels = [
            auto_annotation.label_spec(name, number, type='mask')
            for number, name in enumerate(self.names)
        ]
        return auto_annotation.DetectionFunctionSpec(labels=labels)

    def detect(self, context: Any, image: Image.Image) -> list[Any]:
        """Shapes of an image: masks, or polygons where ``context.conv_mask_to_poly`` says so.

        Regions whose mean probability is below ``context.conf_threshold`` are left out.
        """
        from cvat_sdk import auto_annotation

        least = getattr(context, 'conf_threshold', None) or 0
        [found] = self.inferencer(image, self.classes, self.background)
        kept = [r for r in found.regions().regions if r.score is None or r.score >= least]
        if getattr(context, 'conv_mask_to_poly', False):
            return [
                auto_annotation.polygon(region.label, np.ravel(ring).astype(float).tolist())
                for region in kept
                for ring in rings(region.mask)
            ]
        return [auto_annotation.mask(region.label, _points(region)) for region in kept]


def _points(region: Region) -> list[float]:
    """Runs inside of the box, and its left, top, right and bottom, all inclusive."""
    x, y, w, h = region.box
    runs = cvat_runs(region.mask[y : y + h, x : x + w])
    return [float(value) for value in (*runs, x, y, x + w - 1, y + h - 1)]


create = DetectionFunction
