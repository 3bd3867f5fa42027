"""Evaluation sets that mmseg does not have: A-847, PC-459, PAS-20, PAS-20b and COCO-Object.

Label maps come in the layout of the original archive or in that of CAT-Seg's preparation scripts
('detectron2-style'), which have already been shifted.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mmseg.datasets import PascalVOCDataset
from mmseg.registry import DATASETS

from infoclip_mmseg.datasets.benchmarks import BENCHMARKS, COCO_SPLITS
from infoclip_mmseg.datasets.label_maps import IGNORED_8
from infoclip_mmseg.datasets.vocabulary_dataset import VocabularyDataset

A847, PC459, PAS20, PAS20B = (BENCHMARKS[key] for key in ('ade847', 'pc459', 'voc20', 'voc20b'))
COCO = COCO_SPLITS[-1].made
VOC_BACKGROUND = 20
VOC_BACKGROUND_LAST = {0: VOC_BACKGROUND, **{index + 1: index for index in range(VOC_BACKGROUND)}}
"""Class of each value of VOC's own label maps, with the background behind the 20 classes."""
COCO_THINGS = 80
COCO_OBJECT_OF_STUFF = {
    **{index: index + 1 for index in range(COCO_THINGS)},
    **dict.fromkeys((*range(COCO_THINGS, COCO.num_values), IGNORED_8), 0),
}
"""COCO-Object's class of each of COCO-Stuff's: the things from 1, everything else background."""


@DATASETS.register_module()
class ADE20K847Dataset(VocabularyDataset):
    """ADE20K's full release with its 847 most frequent classes (A-847).

    Label maps are uint16 TIFF: 0..846 are classes, 255 among them; 65535 has no label.

    Args:
        **kwargs: Arguments of :class:`VocabularyDataset`.
    """

    def __init__(self, vocabulary: str = A847.vocabulary, **kwargs: Any) -> None:
        defaults = dict(ignore_index=A847.ignore_index, seg_map_suffix=A847.made.label_suffix)
        super().__init__(vocabulary=vocabulary, **{**defaults, **kwargs})


@DATASETS.register_module()
class PascalContext459Dataset(VocabularyDataset):
    """PASCAL Context with all of its 459 classes (PC-459).

    Label maps are uint16 TIFF that hold the archive's label minus 1. Whatever lies outside 0..458
    has no label.

    Args:
        **kwargs: Arguments of :class:`VocabularyDataset`.
    """

    def __init__(self, vocabulary: str = PC459.vocabulary, **kwargs: Any) -> None:
        defaults = dict(
            ignore_index=PC459.ignore_index,
            outside='ignore',
            seg_map_suffix=PC459.made.label_suffix,
            listing='labels',
        )
        super().__init__(vocabulary=vocabulary, **{**defaults, **kwargs})


@DATASETS.register_module()
class PascalVOC20Dataset(VocabularyDataset):
    """PASCAL VOC 2012 with its 20 classes, the background ignored (PAS-20).

    Args:
        reduce_zero_label: True for VOC's own label maps (0 background, 1..20, 255 void), False for
            shifted ones (0..19, 255).
        **kwargs: Arguments of :class:`VocabularyDataset`.
    """

    def __init__(
        self, vocabulary: str = PAS20.vocabulary, reduce_zero_label: bool = True, **kwargs: Any
    ) -> None:
        kwargs = {'ignore_index': PAS20.ignore_index, **kwargs}
        kwargs['metainfo'] = {'palette': _voc_palette()[1:], **(kwargs.get('metainfo') or {})}
        super().__init__(vocabulary=vocabulary, reduce_zero_label=reduce_zero_label, **kwargs)


@DATASETS.register_module()
class PascalVOC20bDataset(VocabularyDataset):
    """PASCAL VOC 2012 with its 20 classes and the background as the 21st (PAS-20b).

    The model is asked for the 59 names of PASCAL Context, ordered so that VOC's come first
    and :class:`~infoclip_mmseg.evaluation.OpenVocabIoUMetric` counts each prediction from 20 up as
    background, which mmseg's IoUMetric does not.

    Args:
        vocabulary: The 21 classes are its first 20 names and 'background'.
        label_map: For VOC's own label maps (0 background, 1..20, 255 void); None for shifted ones
            (0..20, 255).
        **kwargs: Arguments of :class:`VocabularyDataset`.
    """

    def __init__(
        self,
        vocabulary: str = PAS20B.vocabulary,
        label_map: Mapping[int, int] | None = VOC_BACKGROUND_LAST,
        **kwargs: Any,
    ) -> None:
        kwargs = {
            'ignore_index': PAS20B.ignore_index,
            'background_from': VOC_BACKGROUND,
            **kwargs,
        }
        background, *palette = _voc_palette()
        palette = [*palette, background]
        kwargs['metainfo'] = {'palette': palette, **(kwargs.get('metainfo') or {})}
        super().__init__(vocabulary=vocabulary, label_map=label_map, **kwargs)


@DATASETS.register_module()
class COCOObjectDataset(VocabularyDataset):
    """The 80 things of COCO and the background, class 0 (COCO-Object), from COCO-Stuff's labels.

    Stuff and pixels without a label are background, as in GroupViT's conversion; no pixel is
    ignored.

    Args:
        label_map: For COCO-Stuff's label maps in mmseg's numbers (0..79 things, 80..170 stuff, 255
            none). None for converted ones (0 background, 1..80), which GroupViT's conversion writes
            with `seg_map_suffix='_instanceTrainIds.png'`.
        **kwargs: Arguments of :class:`VocabularyDataset`.
    """

    def __init__(
        self,
        vocabulary: str = 'clearclip_coco_object',
        label_map: Mapping[int, int] | None = COCO_OBJECT_OF_STUFF,
        **kwargs: Any,
    ) -> None:
        defaults = dict(ignore_index=IGNORED_8, img_suffix='.jpg', seg_map_suffix=COCO.label_suffix)
        super().__init__(vocabulary=vocabulary, label_map=label_map, **{**defaults, **kwargs})


def _voc_palette() -> list[list[int]]:
    """VOC's colours, the background's first."""
    return [list(colour) for colour in PascalVOCDataset.METAINFO['palette']]
