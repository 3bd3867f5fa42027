"""A remotely-sourced zoo model of FiftyOne; this folder is what its model zoo loads.

foz.register_zoo_model_source(...)  # or a copy of this folder below fo.config.model_zoo_dir
model = foz.load_zoo_model(
'infoclip/open-vocabulary-segmentation', classes='cat; dog', model='FOLDER'
)
dataset.apply_model(model, label_field='segmentation')
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any, ClassVar

import numpy as np


def download_model(model_name: str, model_path: str) -> None:
    """Note that the model is there: its weights are named when it is loaded."""
    folder = Path(model_path)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / 'model.json').write_text(json.dumps(dict(name=model_name)), encoding='utf-8')


def load_model(
    model_name: str,
    model_path: str,
    classes: Any = None,
    background: Any = None,
    model: str | None = None,
    weights: str | None = None,
    batch_size: int = 1,
    **options: Any,
) -> Any:
    """A ``fiftyone.Model`` that gives ``Segmentation`` labels.

    Masks are uint8, or uint16 above 255 classes: class t is t + 1, the background 0. The model's
    ``mask_targets`` name them.

    Args:
        model_name, model_path: Passed by FiftyOne; not needed.
        classes, background: As of :meth:`~infoclip_mmseg.OpenVocabInferencer.stream`.
        model, weights: See :func:`~infoclip_mmseg.integrations.loading.load_inferencer`.
        batch_size: Images that go through the model together.
        **options: ``device``, ``amp`` and so on.
    """
    import fiftyone

    from infoclip_mmseg.apis.inferencer import DEFAULT_CONFIG
    from infoclip_mmseg.integrations.loading import load_inferencer

    inferencer = load_inferencer(model or DEFAULT_CONFIG, weights, **options)
    words = inferencer.plan(classes, background)

    class SegmentationModel(fiftyone.Model):
        """Arrays RGB (h, w, 3), uint8, to ``Segmentation``."""

        media_type = 'image'
        ragged_batches = False
        transforms = None
        preprocess = False
        mask_targets: ClassVar[dict[int, str]] = dict(enumerate(words.classes, start=1))

        def predict(self, arg: Any) -> Any:
            """The labels of an image."""
            return self.predict_all([arg])[0]

        def predict_all(self, args: Iterable[Any]) -> list[Any]:
            """The labels of several images."""
            images = [np.ascontiguousarray(np.asarray(image)[..., ::-1]) for image in args]
            found = inferencer(images, classes, background, batch_size=batch_size)
            return [fiftyone.Segmentation(mask=_mask(one)) for one in found]

    return SegmentationModel()


def _mask(found: Any) -> np.ndarray:
    count = found.num_classes
    numbers = np.where(found.labels < count, found.labels.astype(np.int64) + 1, 0)
    return numbers.astype(np.uint8 if count < 256 else np.uint16)
