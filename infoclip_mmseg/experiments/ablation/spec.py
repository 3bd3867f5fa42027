"""The ablation file: which configs are trained with which seeds, and what they are tested on."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mmengine.config import Config

FIGURES = ('seen_mIoU', 'unseen_mIoU', 'harmonic')
TOP_KEYS = ('runs', 'seeds', 'tests', 'figures', 'baseline', 'work_dir')
RUN_KEYS = ('name', 'config', 'cfg_options', 'train', 'checkpoint')
TEST_KEYS = ('name', 'config', 'cfg_options')


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
    top = {key: value for key, value in content.items() if not key.startswith('_')}
    _check_keys(top, TOP_KEYS, f'ablation file {path}')
    tests = content.get('tests', [dict(name='test')])
    runs = tuple(_make_run(entry) for entry in _entries(content.get('runs'), 'runs', RUN_KEYS))
    ablation = Ablation(
        runs=runs,
        seeds=check_seeds(content.get('seeds', [0])),
        tests=tuple(Evaluation(**entry) for entry in _entries(tests, 'tests', TEST_KEYS)),
        figures=_names(content.get('figures', FIGURES)),
        baseline=content.get('baseline'),
        work_dir=Path(content.get('work_dir') or Path('work_dirs', path.stem)),
    )
    if ablation.baseline not in (None, *(run.name for run in runs)):
        raise AblationError(
            f'baseline is {ablation.baseline!r}; expected the name of a run, one of '
            f'{[run.name for run in runs]}'
        )
    return ablation


def check_seeds(seeds: Any) -> tuple[int, ...]:
    """Seeds as a tuple.

    Raises:
        AblationError: They are not different non-negative integers.
    """
    valid = isinstance(seeds, (list, tuple)) and len(seeds) > 0
    if not valid or any(type(s) is not int or s < 0 for s in seeds) or len({*seeds}) < len(seeds):
        raise AblationError(f'seeds must be different integers from 0, got {seeds!r}')
    return tuple(seeds)


def slug(name: str) -> str:
    """A name as a folder name: 'w/o L_IB, ours' becomes 'w-o-L_IB-ours'."""
    return re.sub(r'[^\w.-]+', '-', name).strip('-.')


def _make_run(entry: dict[str, Any]) -> Run:
    run = Run(**{'config': None, **entry})
    if not isinstance(run.config, str):
        raise AblationError(f'run {run.name!r} needs config, the path of a config file')
    if run.train and run.checkpoint is not None:
        raise AblationError(
            f'run {run.name!r} has a checkpoint, which is for runs with train=False; to start a '
            "training from it set cfg_options=dict(load_from='...')"
        )
    _check_exists(run.checkpoint, f'checkpoint of run {run.name!r}')
    return run


def _entries(value: Any, what: str, keys: Sequence[str]) -> list[dict[str, Any]]:
    """Check a list of dicts with different names."""
    if not isinstance(value, list) or not value or not all(isinstance(e, dict) for e in value):
        raise AblationError(f'{what} must be a list of one dict or more, got {value!r}')
    taken: dict[str, str] = {}
    for index, entry in enumerate(value):
        _check_keys(entry, keys, f'{what}[{index}]')
        name = entry.get('name')
        if not isinstance(name, str) or not slug(name):
            raise AblationError(
                f'{what}[{index}] needs a name with a letter or digit, got {name!r}'
            )
        if slug(name) in taken:
            raise AblationError(
                f'{what}: {taken[slug(name)]!r} and {name!r} would share the folder '
                f'{slug(name)!r}; give them different names'
            )
        if not isinstance(entry.get('cfg_options', {}), dict):
            raise AblationError(
                f'{what}: cfg_options of {name!r} must be a dict, got {entry["cfg_options"]!r}'
            )
        _check_exists(entry.get('config'), f'config of {name!r}')
        taken[slug(name)] = name
    return value


def _check_keys(entry: Mapping[str, Any], keys: Sequence[str], what: str) -> None:
    unknown = [key for key in entry if key not in keys]
    if unknown:
        raise AblationError(f'{what} has unknown keys {unknown}; expected some of {list(keys)}')


def _names(value: Any) -> tuple[str, ...]:
    if not isinstance(value, (list, tuple)) or not value or not all(type(v) is str for v in value):
        raise AblationError(f'figures must be a list of names of metrics, got {value!r}')
    return tuple(value)


def _check_exists(path: str | Path | None, what: str) -> None:
    if path is not None and not Path(path).is_file():
        raise AblationError(
            f'{what}: {str(path)!r} does not exist (working directory {Path.cwd()})'
        )
