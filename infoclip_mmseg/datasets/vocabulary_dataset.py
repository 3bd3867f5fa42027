"""VocabularyDataset: folders of images and label maps, and a list of names."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

from mmengine import fileio
from mmseg.datasets import BaseSegDataset
from mmseg.registry import DATASETS

from infoclip_mmseg.datasets.label_maps import OUTSIDE, LabelRule, default_ignore_index, file_values
from infoclip_mmseg.datasets.vocabularies import (
    check_several_classes,
    load_vocabulary,
    shipped_vocabularies,
)
from infoclip_mmseg.utils.files import first_few
from infoclip_mmseg.utils.palette import make_palette

IMAGE_SUFFIXES = ('.jpg', '.jpeg', '.png')
LABEL_SUFFIXES = ('.png', '.tif', '.tiff')
LISTINGS = ('images', 'labels')
Suffixes = str | Sequence[str]


@DATASETS.register_module()
class VocabularyDataset(BaseSegDataset):
    """Any data set: a folder of images, a folder of label maps, a list of class names.

    An image and its label map have the same path below their folders, apart from the suffix.
    The number of classes is the number of names. `metainfo` also holds `ignore_index`, which
    :class:`~infoclip_mmseg.engine.VocabularyHook` and
    :class:`~infoclip_mmseg.evaluation.OpenVocabIoUMetric` obey.

    Args:
        vocabulary: Name of a shipped class list, or a file of names (see
            :func:`~infoclip_mmseg.datasets.vocabularies.load_vocabulary`) below `data_root`.
        ignore_index: Value of pixels without a label; None takes 255, or 65535 where 255 stands for
            a class in the files.
        label_map: Class of a value in the files, for values that are not their class.
        outside: What values mean that are no class: 'error', or 'ignore' for no label.
        background_from: Names from this index on are words for the background: the model is asked
            for each of them, and they are one class, the last, called 'background'. The metainfo
            tells it as `prompt_names` and `fold_from`. None: each name is a class.
        data_prefix: As in ``BaseSegDataset``. Without `seg_map_path` there are no label maps, which
            ``test_mode=True`` and a metric with ``format_only=True`` need none of.
        listing: Without `ann_file`, which folder's files make the data set: 'images' or 'labels'.
            All of them must have their counterpart.
        img_suffix, seg_map_suffix: Endings of the files' names, in either case.
        metainfo: More entries; `classes` may not be among them.
        **kwargs: As in ``BaseSegDataset``; `reduce_zero_label=True` for label maps that count from
            1.

    Raises:
        FileNotFoundError: The vocabulary, a folder, an image or a label map is not there.
        ValueError: Unknown option, a single class, a class that no value can mean, two files of the
            same name, or no files.
    """

    def __init__(
        self,
        vocabulary: str,
        ignore_index: int | None = None,
        label_map: Mapping[int, int] | None = None,
        outside: str = 'error',
        background_from: int | None = None,
        listing: str = 'images',
        img_suffix: Suffixes = IMAGE_SUFFIXES,
        seg_map_suffix: Suffixes = LABEL_SUFFIXES,
        metainfo: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        options = ('outside', outside, OUTSIDE), ('listing', listing, LISTINGS)
        for option, value, known in options:
            if value not in known:
                raise ValueError(f'{option} must be one of {known}, got {value!r}')
        if metainfo and 'classes' in metainfo:
            raise ValueError(
                f'{type(self).__name__} takes its class names from vocabulary={vocabulary!r}; '
                'take `classes` out of metainfo'
            )
        shipped, root = vocabulary in shipped_vocabularies(), kwargs.get('data_root') or ''
        names = load_vocabulary(vocabulary if shipped else os.path.join(root, vocabulary))
        check_several_classes(names, type(self).__name__)
        meta = make_metainfo(names, background_from)
        num_classes = len(meta['classes'])
        reduced = kwargs.get('reduce_zero_label', False)
        if ignore_index is None:
            ignore_index = default_ignore_index(num_classes, reduced)
        self.listing = listing
        # Keys that come from JSON are strings.
        mapped = tuple(sorted((int(k), v) for k, v in (label_map or {}).items()))
        self.label_rule = LabelRule(num_classes, ignore_index, reduced, mapped, outside)
        file_values(self.label_rule, num_classes)
        super().__init__(
            metainfo={**meta, 'ignore_index': ignore_index, **(metainfo or {})},
            ignore_index=ignore_index,
            img_suffix=_suffixes(img_suffix),
            seg_map_suffix=_suffixes(seg_map_suffix),
            **kwargs,
        )

    def load_data_list(self) -> list[dict]:
        """One entry an image: `img_path`, `seg_map_path`, `label_rule`; sorted by name."""
        images = self._list('img_path', self.img_suffix)
        labels = self._list_labels()
        if self.ann_file:
            text = fileio.get_text(self.ann_file, 'utf-8-sig', backend_args=self.backend_args)
            source, stems = (
                self.ann_file,
                [line.strip() for line in text.splitlines() if line.strip()],
            )
        else:
            source, files, suffixes = ('img_path', images, self.img_suffix)
            if self.listing == 'labels':
                source, files, suffixes = ('seg_map_path', labels or {}, self.seg_map_suffix)
            stems = sorted(files)
            if not stems:
                raise ValueError(
                    f'{type(self).__name__}: no file that ends in {suffixes} in '
                    f'data_prefix.{source}, {self.data_prefix[source]}'
                )
        self._check_pairs(stems, images, labels, source)
        labels = labels or {}
        return [
            dict(
                img_path=images[stem],
                seg_map_path=labels.get(stem),
                label_rule=tuple(self.label_rule),
                label_map=dict(self.label_rule.label_map) or None,  # for mmseg's LoadAnnotations
                reduce_zero_label=self.reduce_zero_label,
                seg_fields=[],
            )
            for stem in stems
        ]

    def _list_labels(self) -> dict[str, str] | None:
        """As :meth:`_list`; None where the data set has no label maps, and needs none."""
        if self.data_prefix.get('seg_map_path'):
            return self._list('seg_map_path', self.seg_map_suffix)
        if self.test_mode and self.listing == 'images':
            return None
        raise ValueError(
            f'{type(self).__name__} has no label maps: set data_prefix.seg_map_path to their '
            "folder. For predictions alone set test_mode=True, listing='images' and "
            'format_only=True of the metric'
        )

    def _list(self, key: str, suffixes: tuple[str, ...]) -> dict[str, str]:
        """Path of each file of a folder by its path below it without suffix."""
        folder = self.data_prefix[key]
        files: dict[str, str] = {}
        if not fileio.isdir(folder, backend_args=self.backend_args):
            raise FileNotFoundError(
                f'{type(self).__name__}: data_prefix.{key} is no folder: {folder} (working '
                f'directory {os.getcwd()})'
            )
        for name in fileio.list_dir_or_file(
            folder, list_dir=False, recursive=True, backend_args=self.backend_args
        ):
            suffix = next((s for s in suffixes if name.lower().endswith(s.lower())), None)
            if suffix is None:
                continue
            stem = name[: -len(suffix)].replace(os.sep, '/')
            if stem in files:
                raise ValueError(
                    f'{type(self).__name__}: {files[stem]} and {os.path.join(folder, name)} have '
                    f'the same name; remove one, or tell them apart by the suffix (now {suffixes})'
                )
            files[stem] = os.path.join(folder, name)
        return files

    def _check_pairs(
        self, stems: Sequence[str], images: Mapping, labels: Mapping | None, source: str
    ) -> None:
        pairs = ('images', 'img_path', images), ('label maps', 'seg_map_path', labels)
        for what, key, files in pairs:
            missing = [] if files is None else [stem for stem in stems if stem not in files]
            if missing:
                raise FileNotFoundError(
                    f'{type(self).__name__}: {len(missing)} of {len(stems)} {what} that {source} '
                    f'asks for are not in {self.data_prefix[key]}: '
                    f'{first_few(missing, 3, rest=" ...")}. Copy or make them, or check '
                    'data_prefix, img_suffix and seg_map_suffix.'
                )


def make_metainfo(names: Sequence[str], background_from: int | None = None) -> dict[str, Any]:
    """Classes and colours of a vocabulary; see :class:`VocabularyDataset`."""
    if background_from is None:
        return dict(classes=list(names), palette=make_palette(len(names)))
    if not 0 < background_from < len(names):
        raise ValueError(
            f'background_from must be 1..{len(names) - 1} for {len(names)} names, got '
            f'{background_from}'
        )
    meta = make_metainfo([*names[:background_from], 'background'])
    return dict(meta, prompt_names=list(names), fold_from=background_from)


def _suffixes(value: Suffixes) -> tuple[str, ...]:
    """Suffixes, the longer ones first, so that '_labels.png' wins over '.png'."""
    values = (value,) if isinstance(value, str) else tuple(value)
    return tuple(sorted(values, key=len, reverse=True))
