"""Checks of a config's data folders, made before anything is built."""

from __future__ import annotations

import codecs
import inspect
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmseg.registry import DATASETS

from infoclip_mmseg.datasets.vocabularies import shipped_vocabularies
from infoclip_mmseg.datasets.vocabulary_dataset import VocabularyDataset

DATALOADERS = ('train_dataloader', 'val_dataloader', 'test_dataloader')


def check_dataloader_cfg(cfg: Config, keys: Sequence[str] = DATALOADERS) -> None:
    """Check that the files and folders which a config's datasets name are there.

    MMSegmentation tells of some missing folders late and of an empty one as 'need at least one
    array to concatenate'. This looks at `data_root`, every entry of `data_prefix` and `ann_file`
    of each dataset, nested ones (`dataset`, `datasets`) too. Paths on a remote backend are skipped.

    Raises:
        FileNotFoundError: One message with everything missing, its config keys and how to mend it.
    """
    problems: list[str] = []
    for key in keys:
        loader = cfg.get(key)
        if isinstance(loader, Mapping) and 'dataset' in loader:
            for name, dataset in _leaf_datasets(loader['dataset'], f'{key}.dataset'):
                problems.extend(_find_problems(name, dataset))
    if problems:
        lines = '\n'.join(f'  {line}' for line in dict.fromkeys(problems))
        raise FileNotFoundError(
            f'data set not found (relative paths start at {os.getcwd()}):\n{lines}\n'
            'Put the data there, in the layout that data/README.md shows, or point the key named '
            'above to it, in the config or with --cfg-options KEY=PATH.'
        )


def _leaf_datasets(dataset: Any, name: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield (config key, config) of the datasets inside Repeat-, Concat- and other wrappers."""
    if not isinstance(dataset, Mapping):
        return
    if 'datasets' in dataset:
        for index, inner in enumerate(dataset['datasets']):
            yield from _leaf_datasets(inner, f'{name}.datasets.{index}')
    elif 'dataset' in dataset:
        yield from _leaf_datasets(dataset['dataset'], f'{name}.dataset')
    else:
        yield name, dataset


def _find_problems(name: str, dataset: Mapping[str, Any]) -> Iterator[str]:
    """Yield one line for every missing path of one dataset config."""
    backend = dataset.get('backend_args') or {}
    if backend.get('backend', 'local') != 'local':
        return
    root = dataset.get('data_root') or ''
    if _is_remote(root):
        return
    ann_file = dataset.get('ann_file') or ''
    prefixes = dataset.get('data_prefix') or {}
    uses_root = any(
        path and not (os.path.isabs(path) or _is_remote(path))
        for path in (ann_file, *prefixes.values())
    )
    if root and not os.path.isdir(root) and (uses_root or not any(prefixes.values())):
        yield f'{name}.data_root={root!r}: no such folder'
        return
    own = issubclass(_class_of(dataset), VocabularyDataset)
    if ann_file and not _is_remote(ann_file):
        path = os.path.join(root, ann_file)
        if not os.path.exists(path):
            yield f'{name}.ann_file={ann_file!r}: no file {path}'
        elif not own and os.path.isfile(path) and Path(path).read_bytes()[:3] == codecs.BOM_UTF8:
            yield (
                f'{name}.ann_file={ann_file!r}: {path} begins with a byte order mark, which would '
                'become part of the first name; save it as UTF-8 without one'
            )
    names = dataset.get('vocabulary')
    if prefixes and isinstance(names, str) and names not in shipped_vocabularies():
        path = os.path.join(root, names)
        if not os.path.isfile(path):
            shipped = ', '.join(shipped_vocabularies())
            yield f'{name}.vocabulary={names!r}: no file {path}, and none of the lists {shipped}'
    for key, prefix in prefixes.items():
        folder = os.path.join(root, prefix)
        if not prefix or _is_remote(prefix):
            continue
        if not os.path.isdir(folder):
            yield f'{name}.data_prefix.{key}={prefix!r}: no folder {folder}'
        elif key == 'img_path':
            suffix = dataset.get('img_suffix') or _usual_suffix(dataset)
            exact, other_case = _count_files(folder, suffix)
            if not exact + other_case * own:
                yield f'{name}.data_prefix.{key}={prefix!r}: no image in {folder}'
            if other_case and not own:
                yield (
                    f'{name}.img_suffix={suffix!r}: {other_case} files in {folder} have it in '
                    'another case and would be left out; rename them, or use a VocabularyDataset, '
                    'which takes either'
                )


def _is_remote(path: str) -> bool:
    return '://' in path or path.startswith('s3:')


def _class_of(dataset: Mapping[str, Any]) -> type:
    kind = DATASETS.get(dataset['type']) if isinstance(dataset.get('type'), str) else None
    return kind if isinstance(kind, type) else object


def _usual_suffix(dataset: Mapping[str, Any]) -> str | Sequence[str]:
    """Default of a data set's argument img_suffix; '' where it is passed on to a base class."""
    usual = inspect.signature(_class_of(dataset)).parameters.get('img_suffix')
    return '' if usual is None else usual.default


def _count_files(folder: str, suffix: str | Sequence[str]) -> tuple[int, int]:
    """Files below a folder that end so, and that do in another case; hidden ones do not count."""
    suffixes = (suffix,) if isinstance(suffix, str) else tuple(suffix)
    lower = tuple(s.lower() for s in suffixes)
    walk = os.walk(folder, followlinks=True)
    names = [name for _, _, names in walk for name in names if not name.startswith('.')]
    exact = sum(name.endswith(suffixes) for name in names)
    return exact, sum(name.lower().endswith(lower) for name in names) - exact
