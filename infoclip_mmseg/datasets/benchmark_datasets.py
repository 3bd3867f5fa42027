"""Evaluation sets that mmseg does not have: A-847, PC-459, PAS-20, PAS-20b and COCO-Object.

Label maps come in the layout of the original archive or in that of CAT-Seg's preparation scripts
('detectron2-style'), which have already been shifted.
"""

from __future__ import annotations

from typing import Any, ClassVar

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
VOC_PALETTE: list[list[int]] = PascalVOCDataset.METAINFO['palette']
COCO_THINGS = 80
COCO_OBJECT_OF_STUFF = {
    **{index: index + 1 for index in range(COCO_THINGS)},
    **dict.fromkeys((*range(COCO_THINGS, COCO.num_values), IGNORED_8), 0),
}
"""COCO-Object's class of each of COCO-Stuff's: the things from 1, everything else background."""


class _KnownDataset(VocabularyDataset):
    """A VocabularyDataset with arguments, and colours, of its own where none are given."""

    defaults: ClassVar[dict[str, Any]] = {}
    palette: ClassVar[list[list[int]] | None] = None

    def __init__(self, vocabulary: str | None = None, **kwargs: Any) -> None:
        if vocabulary is not None:
            kwargs['vocabulary'] = vocabulary
        if self.palette is not None:
            palette = [list(colour) for colour in self.palette]
            kwargs['metainfo'] = {'palette': palette, **(kwargs.get('metainfo') or {})}
        super().__init__(**{**self.defaults, **kwargs})


@DATASETS.register_module()
class ADE20K847Dataset(_KnownDataset):
    """ADE20K's full release with its 847 most frequent classes (A-847).

    Label maps are uint16 TIFF: 0..846 are classes, 255 among them; 65535 has no label. Arguments
    are those of :class:`VocabularyDataset`.
    """

    defaults: ClassVar = dict(
        vocabulary=A847.vocabulary,
        ignore_index=A847.ignore_index,
        seg_map_suffix=A847.made.label_suffix,
    )


@DATASETS.register_module()
class PascalContext459Dataset(_KnownDataset):
    """PASCAL Context with all of its 459 classes (PC-459).

    Label maps are uint16 TIFF that hold the archive's label minus 1. Whatever lies outside 0..458
    has no label. Arguments are those of :class:`VocabularyDataset`.
    """

    defaults: ClassVar = dict(
        vocabulary=PC459.vocabulary,
        ignore_index=PC459.ignore_index,
        outside='ignore',
        seg_map_suffix=PC459.made.label_suffix,
        listing='labels',
    )


@DATASETS.register_module()
class PascalVOC20Dataset(_KnownDataset):
    """PASCAL VOC 2012 with its 20 classes, the background ignored (PAS-20).

    Arguments are those of :class:`VocabularyDataset`; `reduce_zero_label` is True for VOC's own
    label maps (0 background, 1..20, 255 void), the default, False for shifted ones (0..19, 255).
    """

    palette: ClassVar = VOC_PALETTE[1:]
    defaults: ClassVar = dict(
        vocabulary=PAS20.vocabulary, reduce_zero_label=True, ignore_index=PAS20.ignore_index
    )


@DATASETS.register_module()
class PascalVOC20bDataset(_KnownDataset):
    """PASCAL VOC 2012 with its 20 classes and the background as the 21st (PAS-20b).

    The model is asked for the 59 names of PASCAL Context, ordered so that VOC's come first
    and :class:`~infoclip_mmseg.evaluation.OpenVocabIoUMetric` counts each prediction from 20 up as
    background, which mmseg's IoUMetric does not.

    Arguments are those of :class:`VocabularyDataset`. The 21 classes are the first 20 names of the
    vocabulary and 'background'. `label_map` is by default that of VOC's own label maps (0
    background, 1..20, 255 void); None is for shifted ones (0..20, 255).
    """

    palette: ClassVar = [*VOC_PALETTE[1:], VOC_PALETTE[0]]
    defaults: ClassVar = dict(
        vocabulary=PAS20B.vocabulary,
        label_map=VOC_BACKGROUND_LAST,
        ignore_index=PAS20B.ignore_index,
        background_from=VOC_BACKGROUND,
    )


@DATASETS.register_module()
class COCOObjectDataset(_KnownDataset):
    """The 80 things of COCO and the background, class 0 (COCO-Object), from COCO-Stuff's labels.

    Stuff and pixels without a label are background, as in GroupViT's conversion; no pixel is
    ignored.

    Arguments are those of :class:`VocabularyDataset`. `label_map` is by default for COCO-Stuff's
    label maps in mmseg's numbers (0..79 things, 80..170 stuff, 255 none). None is for converted
    ones (0 background, 1..80), which GroupViT's conversion writes with
    `seg_map_suffix='_instanceTrainIds.png'`.
    """

    defaults: ClassVar = dict(
        vocabulary='clearclip_coco_object',
        label_map=COCO_OBJECT_OF_STUFF,
        ignore_index=IGNORED_8,
        img_suffix='.jpg',
        seg_map_suffix=COCO.label_suffix,
    )
