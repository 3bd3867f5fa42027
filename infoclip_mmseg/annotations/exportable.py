"""What results of any task offer: their regions, in the forms of other libraries."""

from __future__ import annotations

from typing import Any

import numpy as np

from infoclip_mmseg.annotations.formats import coco_annotations, labelme_content
from infoclip_mmseg.annotations.regions import Regions


class Exportable:
    """A result that has regions."""

    def regions(self) -> Regions:
        """Regions of the classes; what is background is none."""
        raise NotImplementedError

    def to_coco_rle(self) -> list[dict[str, Any]]:
        """COCO's annotations of the image: run lengths, boxes, areas; categories count from 1."""
        return coco_annotations(self.regions())

    def to_labelme(self) -> dict[str, Any]:
        """What labelme's JSON file of the image holds: polygons."""
        return labelme_content(self.regions())

    def to_supervision(self) -> Any:
        """``supervision.Detections`` with masks, class ids from 0, scores and names.

        A ValueError without the library: pip install supervision.
        """
        try:
            from supervision import Detections
        except ImportError as error:
            raise ValueError(
                'to_supervision needs its library: pip install "infoclip_mmseg[supervision]"'
            ) from error
        found = self.regions()
        if not found.regions:
            return Detections.empty()
        boxes = np.array([region.box for region in found.regions], dtype=np.float32)
        boxes[:, 2:] += boxes[:, :2]
        scores = [np.nan if r.score is None else r.score for r in found.regions]
        return Detections(
            xyxy=boxes,
            mask=np.stack([region.mask for region in found.regions]),
            confidence=np.array(scores, dtype=np.float32),
            class_id=np.array([region.label for region in found.regions]),
            data=dict(class_name=np.array([region.name for region in found.regions])),
        )
