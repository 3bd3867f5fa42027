"""The ablation file: which configs are trained with which seeds, and what they are tested on."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from mmengine.config import Config

FIGURES = ('seen_mIoU', 'unseen_mIoU', 'harmonic')


class AblationError(ValueError):
    """The ablation file, or what lies in its working folder, can't be used."""


@dataclass(frozen=True)
class Run:
    """A row of the table: one config, trained once a seed, or not trained at all."""

    name: str
    config: str
    cfg_options: Mapping[str, Any] = field(default_factory=dict)
    train: bool = True
    checkpoint: str | None = None


@dataclass(frozen=True)
class Evaluation:
    """A test set for every row; `jobs.make_test_config` says how its config comes about."""

    name: str
    config: str | None = None
    cfg_options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Ablation:
    """What an ablation file says; see :func:`read_ablation`."""

    runs: tuple[Run, ...]
    seeds: tuple[int, ...]
    tests: tuple[Evaluation, ...]
    figures: tuple[str, ...]
    baseline: str | None
    work_dir: Path


def read_ablation(path: str | Path) -> Ablation:
    """Read and check an ablation file (a Python config).

    Its names: `runs`, a list of dicts with `name`, `config` and perhaps `cfg_options`, `train`
    (False: evaluate without training) and `checkpoint` (of such a row; None takes the weights with
    which a training would start); `seeds`, default [0]; `tests`, a list of dicts with `name` and
    perhaps `config` and `cfg_options`, default one with the run's own test set; `figures`, the
    metrics to compare, higher ones better; `baseline`, the run that the others are compared with;
    `work_dir`, default work_dirs/<name of the file>. Other names must start with an underscore.

    Raises:
        AblationError: The file or a config in it does not exist, or an entry is wrong.
    """
    path = Path(path)
    _check_exists(path, 'ablation file')
    content = Config.fromfile(path).to_dict()
    content = {key: value for key, value in content.items() if not key.startswith('_')}
    _check_keys(content, Ablation, f'ablation file {path}')
    runs = _entries(content.get('runs'), 'runs', Run)
    for run in runs:
        _check_checkpoint(run)
    names, baseline = [run.name for run in runs], content.get('baseline')
    if baseline is not None and baseline not in names:
        raise AblationError(f'baseline is {baseline!r}; expected the name of a run, one of {names}')
    figures = content.get('figures', FIGURES)
    if not _is_list(figures) or not all(type(name) is str for name in figures):
        raise AblationError(f'figures must be a list of names of metrics, got {figures!r}')
    return Ablation(
        runs=runs,
        seeds=check_seeds(content.get('seeds', [0])),
        tests=_entries(content.get('tests', [dict(name='test')]), 'tests', Evaluation),
        figures=tuple(figures),
        baseline=baseline,
        work_dir=Path(content.get('work_dir') or Path('work_dirs', path.stem)),
    )


def check_seeds(seeds: Any) -> tuple[int, ...]:
    """Seeds as a tuple.

    Raises:
        AblationError: They are not different non-negative integers.
    """
    valid = _is_list(seeds) and all(type(seed) is int and seed >= 0 for seed in seeds)
    if not valid or len(set(seeds)) < len(seeds):
        raise AblationError(f'seeds must be different integers from 0, got {seeds!r}')
    return tuple(seeds)


def slug(name: str) -> str:
    """A name as a folder name: 'w/o L_IB, ours' becomes 'w-o-L_IB-ours'."""
    return re.sub(r'[^\w.-]+', '-', name).strip('-.')


def _entries(entries: Any, what: str, kind: type[Any]) -> tuple[Any, ...]:
    """Objects made of a list of dicts with different names."""
    if not _is_list(entries) or not all(isinstance(entry, dict) for entry in entries):
        raise AblationError(f'{what} must be a list of one dict or more, got {entries!r}')
    taken: dict[str, str] = {}
    for index, entry in enumerate(entries):
        _check_keys(entry, kind, f'{what}[{index}]')
        name, options = entry.get('name'), entry.get('cfg_options', {})
        folder = slug(name) if isinstance(name, str) else ''
        if not folder:
            raise AblationError(
                f'{what}[{index}] needs a name with a letter or digit, got {name!r}'
            )
        if folder in taken:
            raise AblationError(
                f'{what}: {taken[folder]!r} and {name!r} would share the folder {folder!r}; give '
                'them different names'
            )
        if not isinstance(options, dict):
            raise AblationError(f'{what}: cfg_options of {name!r} must be a dict, got {options!r}')
        _check_exists(entry.get('config'), f'config of {name!r}')
        taken[folder] = name
    return tuple(kind(**{'config': None, **entry}) for entry in entries)


def _check_checkpoint(run: Run) -> None:
    if not isinstance(run.config, str):
        raise AblationError(f'run {run.name!r} needs config, the path of a config file')
    if run.train and run.checkpoint is not None:
        raise AblationError(
            f'run {run.name!r} has a checkpoint, which is for runs with train=False; to start a '
            "training from it set cfg_options=dict(load_from='...')"
        )
    _check_exists(run.checkpoint, f'checkpoint of run {run.name!r}')


def _is_list(value: Any) -> bool:
    return isinstance(value, (list, tuple)) and len(value) > 0


def _check_keys(entry: Mapping[str, Any], kind: type[Any], what: str) -> None:
    known = [one.name for one in fields(kind)]
    unknown = [key for key in entry if key not in known]
    if unknown:
        raise AblationError(f'{what} has unknown keys {unknown}; expected some of {known}')


def _check_exists(path: str | Path | None, what: str) -> None:
    if path is not None and not Path(path).is_file():
        raise AblationError(
            f'{what}: {str(path)!r} does not exist (working directory {Path.cwd()})'
        )
