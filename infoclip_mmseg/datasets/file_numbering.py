"""How a data set's own files number the classes, and where its images lie: for files we write."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from infoclip_mmseg.datasets.label_maps import LabelRule, default_ignore_index, mmseg_rule


class FileNumbering(NamedTuple):
    """Of a data set, or of one of several that are joined.

    Attributes:
        folder: Where its images lie; empty where that is not known.
        rule: How the values of its label maps become classes.
    """

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

    Args:
        image: Path of the image.
        numberings: Those of its data set.

    Returns:
        A relative path without suffix: the image's below the data set's folder; where several are
        joined, below the folder that all of theirs have in common.
    """
    inside = [n for n in numberings if n.folder and _is_below(image, n.folder)]
    if not inside:
        return Path(Path(image).stem), numberings[0].rule
    folders = [os.path.abspath(n.folder) for n in numberings if n.folder]
    base = folders[0] if len(set(folders)) == 1 else os.path.commonpath(folders)
    nearest = max(inside, key=lambda n: len(os.path.abspath(n.folder)))
    return Path(os.path.relpath(os.path.abspath(image), base)).with_suffix(''), nearest.rule


def _is_below(image: str, folder: str) -> bool:
    return Path(os.path.abspath(folder)) in Path(os.path.abspath(image)).parents
