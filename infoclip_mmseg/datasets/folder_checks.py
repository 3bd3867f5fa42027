"""Checks of a config's data folders, made before anything is built."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from mmengine.config import Config

from infoclip_mmseg.datasets.vocabularies import shipped_vocabularies

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
    if ann_file and not _is_remote(ann_file) and not os.path.exists(os.path.join(root, ann_file)):
        yield f'{name}.ann_file={ann_file!r}: no file {os.path.join(root, ann_file)}'
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
        elif key == 'img_path' and not _has_file(folder, dataset.get('img_suffix', '')):
            yield f'{name}.data_prefix.{key}={prefix!r}: no image in {folder}'


def _is_remote(path: str) -> bool:
    return '://' in path or path.startswith('s3:')


def _has_file(folder: str, suffix: str | Sequence[str]) -> bool:
    """Whether some file below a folder ends so; hidden files do not count, as in MMEngine."""
    suffix = suffix if isinstance(suffix, str) else tuple(suffix)
    for _, _, names in os.walk(folder, followlinks=True):
        if any(name.endswith(suffix) and not name.startswith('.') for name in names):
            return True
    return False
