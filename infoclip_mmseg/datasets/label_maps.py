"""Label maps of 8 and 16 bits: from a file to class indices, and back for files that we write."""

from __future__ import annotations

import functools
import io
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from mmcv.transforms import BaseTransform
from mmengine import fileio
from mmseg.registry import TRANSFORMS
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from infoclip_mmseg.utils.files import first_few

IGNORED_8, IGNORED_16 = 255, 65535
"""Usual values of pixels without a label in maps of 8 and of 16 bits."""
NUM_VALUES = 1 << 16
OUTSIDE = ('error', 'ignore')
_INVALID = -1


class LabelRule(NamedTuple):
    """How the values in a data set's files become class indices.

    Attributes:
        num_classes: T; None leaves the range unchecked.
        ignore_index: Value of pixels without a label, in the files and after loading.
        reduce_zero_label: Files count from 1: 0 becomes `ignore_index`, k becomes k - 1.
        label_map: Pairs (value, class) that are applied after that; other values stay.
        outside: What a value outside 0..T-1 means: 'error', or 'ignore' for no label.
    """

    num_classes: int | None = None
    ignore_index: int = IGNORED_8
    reduce_zero_label: bool = False
    label_map: tuple[tuple[int, int], ...] = ()
    outside: str = 'error'


def default_ignore_index(num_classes: int, reduce_zero_label: bool = False) -> int:
    """255, or 65535 where 255 stands for a class in the files."""
    return IGNORED_8 if num_classes + reduce_zero_label <= IGNORED_8 else IGNORED_16


def file_values(rule: LabelRule, num_classes: int) -> NDArray[np.int64]:
    """The inverse of :func:`apply_label_rule`: what stands for each class in a data set's files.

    Values are (T,), 0..65535: of several that become one class one of ``label_map``, and of these
    the lowest. Where none becomes one of the classes a ValueError is raised.
    """
    table = _lookup_table(rule._replace(num_classes=num_classes))
    labels, first = np.unique(table, return_index=True)
    values = dict(zip(labels.tolist(), first.tolist()))
    for value, label in reversed(rule.label_map):  # what is stated comes before what stays
        values[label] = value + rule.reduce_zero_label
    lost = [label for label in range(num_classes) if label not in values]
    if lost or rule.ignore_index < num_classes:
        lost = lost or [rule.ignore_index]
        raise ValueError(
            f'no value in the label maps can mean {first_few([f"class {c}" for c in lost], 3)}: '
            f'with {num_classes} classes, ignore_index={rule.ignore_index}, '
            f'reduce_zero_label={rule.reduce_zero_label} and label_map={dict(rule.label_map)} it '
            f'is taken. For maps of 16 bits set ignore_index={IGNORED_16}; else check label_map'
        )
    return np.array([values[label] for label in range(num_classes)])


def decode_label_map(data: bytes, name: str = 'label map') -> NDArray[np.uint16]:
    """Values (H, W), uint8 or uint16, of a label map: PNG, TIFF or another image of one channel.

    Pixels have 1, 8 or 16 bits, grey or indices of a palette; ``name`` is for messages.

    Raises:
        ValueError: The file can't be read, has several channels or values of more than 16 bits.
    """
    try:
        with Image.open(io.BytesIO(data)) as image:
            mode, values = image.mode, np.array(image)
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError) as error:
        raise ValueError(
            f'label map {name} can not be read ({len(data)} bytes; {error}). Copy or make it again.'
        ) from error
    if values.ndim != 2 or values.dtype.kind not in 'uib':
        raise ValueError(
            f'label map {name} holds {mode} pixels of shape {values.shape}; expected one channel '
            'of integers (H, W) with a class index in each pixel. Is it a photo or a coloured '
            'picture? Check seg_map_path, or convert it to an indexed or grey PNG.'
        )
    if values.dtype.itemsize > 2:  # Pillow reads some 16-bit PNG files as 32 bits
        if values.size and (values.min() < 0 or values.max() >= NUM_VALUES):
            raise ValueError(
                f'label map {name} has values from {values.min()} to {values.max()}; expected '
                f'0..{NUM_VALUES - 1}'
            )
        return values.astype(np.uint16)
    return values.astype(np.uint8 if values.dtype.itemsize == 1 else np.uint16)


def apply_label_rule(
    values: NDArray[np.uint16], rule: LabelRule, name: str = 'label map'
) -> NDArray[np.uint16]:
    """Values (H, W) of a file, whose name is for messages, to 0..T-1 or `rule.ignore_index`.

    They are uint8 where that is enough, else uint16; without `rule.num_classes` the type of the
    values. A ValueError tells of a value that is no class where `rule.outside` is 'error'.
    """
    labels = _lookup_table(rule)[values]
    invalid = labels == _INVALID
    if invalid.any():
        wrong = first_few(np.unique(values[invalid]).tolist(), rest=' ...')
        raise ValueError(
            f'label map {name} has the values {wrong} in {np.count_nonzero(invalid)} '
            f'pixels, which are none of the {rule.num_classes} classes ({_describe(rule)}). Does '
            'the file belong to this data set, and the vocabulary to the file?'
        )
    if rule.num_classes is None:
        return labels.astype(values.dtype)
    narrow = max(rule.num_classes - 1, rule.ignore_index) < 1 << 8
    return labels.astype(np.uint8 if narrow else np.uint16)


@TRANSFORMS.register_module()
class LoadLabelMap(BaseTransform):
    """Load a label map of 8 or 16 bits; takes the place of mmseg's `LoadAnnotations`.

    mmseg's step casts to uint8, which turns class 300 into 44. This one keeps 16 bits, obeys the
    data set's rule (`label_rule`, or mmseg's `reduce_zero_label` and `label_map`), and names the
    file if a value is no class. Images of a :class:`VocabularyDataset` without label maps, or of no
    data set, as those of ``MMSegInferencer``, pass unchanged.

    Required key: seg_map_path. Optional: label_rule, reduce_zero_label, label_map. Added:
    gt_seg_map (H, W), uint8 or uint16; seg_fields. For the argument see ``mmengine.fileio.get``.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: See :func:`decode_label_map` and :func:`apply_label_rule`.
    """

    def __init__(self, backend_args: dict | None = None) -> None:
        self.backend_args = backend_args

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        """Load one label map; see the class."""
        path = results.get('seg_map_path')
        if path is None:
            if 'label_rule' in results or 'reduce_zero_label' not in results:
                return results  # of a data set without label maps, or of none at all
            raise ValueError(
                f'image {results.get("img_path")} has no label map: set data_prefix.seg_map_path '
                'of the data set, or take LoadLabelMap out of the pipeline'
            )
        try:
            data = fileio.get(path, backend_args=self.backend_args)
        except FileNotFoundError as error:
            raise FileNotFoundError(
                f'label map {path} of image {results.get("img_path")} does not exist; check '
                'data_prefix.seg_map_path and seg_map_suffix of the data set'
            ) from error
        rule = results.get('label_rule') or mmseg_rule(results)
        values = decode_label_map(data, str(path))
        results['gt_seg_map'] = apply_label_rule(values, LabelRule(*rule), str(path))
        results.setdefault('seg_fields', []).append('gt_seg_map')
        return results

    def __repr__(self) -> str:
        return f'{type(self).__name__}(backend_args={self.backend_args})'


def mmseg_rule(results: Mapping[str, Any]) -> LabelRule:
    """The rule of one of mmseg's own data sets, from what it hands to the pipeline."""
    label_map = tuple(sorted((results.get('label_map') or {}).items()))
    return LabelRule(reduce_zero_label=bool(results.get('reduce_zero_label')), label_map=label_map)


@functools.lru_cache(maxsize=16)
def _lookup_table(rule: LabelRule) -> NDArray[np.int32]:
    """Class of each of the 65536 values, -1 for wrong ones."""
    table = np.arange(NUM_VALUES, dtype=np.int32)
    if rule.reduce_zero_label:
        table -= 1
        table[0] = rule.ignore_index
    table[rule.ignore_index] = rule.ignore_index
    before = table.copy()
    for value, label in rule.label_map:
        table[before == value] = label
    if rule.num_classes is not None:
        outside = (table >= rule.num_classes) & (table != rule.ignore_index)
        table[outside] = rule.ignore_index if rule.outside == 'ignore' else _INVALID
    table.setflags(write=False)
    return table


def _describe(rule: LabelRule) -> str:
    first = int(rule.reduce_zero_label)
    values = [v for v, _ in rule.label_map] or [first, (rule.num_classes or 0) - 1 + first]
    return f'expected {values[0]}..{values[-1]}, {rule.ignore_index} for no label'


class FileNumbering(NamedTuple):
    """How the files of a data set, whose images lie in a folder ('' if unknown), number classes."""

    folder: str
    rule: LabelRule


def numberings_of(dataset: Any) -> list[FileNumbering]:
    """Those of a data set, and of each that a wrapper (ConcatDataset, RepeatDataset ...) joins."""
    return [
        FileNumbering(
            str((getattr(member, 'data_prefix', None) or {}).get('img_path') or ''),
            getattr(member, 'label_rule', None) or mmseg_rule(vars(member)),
        )
        for member in _members(dataset)
    ]


def numbering_of_meta(meta: Mapping[str, Any]) -> list[FileNumbering]:
    """The same from a data set's metainfo, which does not tell the folder."""
    if meta.get('file_numberings'):
        return meta['file_numberings']
    rule = mmseg_rule(meta)
    default = default_ignore_index(len(meta['classes']), rule.reduce_zero_label)
    return [FileNumbering('', rule._replace(ignore_index=meta.get('ignore_index', default)))]


def _members(dataset: Any) -> Iterator[Any]:
    inner = getattr(dataset, 'datasets', None) or [getattr(dataset, 'dataset', None)]
    for member in inner:
        yield from [dataset] if member is None else _members(member)


def place_of(image: str, numberings: Sequence[FileNumbering]) -> tuple[Path, LabelRule]:
    """Where the label map of an image belongs, and its rule.

    The place is a path without suffix, the image's below its data set's folder; where several are
    joined, below the folder that all of theirs have in common.
    """
    path = Path(os.path.abspath(image))
    rules = {Path(os.path.abspath(n.folder)): n.rule for n in reversed(numberings) if n.folder}
    nearest = next((folder for folder in path.parents if folder in rules), None)
    if nearest is None:
        return Path(Path(image).stem), numberings[0].rule
    return path.relative_to(os.path.commonpath(rules)).with_suffix(''), rules[nearest]
