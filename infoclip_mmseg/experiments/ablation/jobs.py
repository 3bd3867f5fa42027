"""The jobs of an ablation: one row with one seed each, with configs and fingerprints."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmengine.config import Config, ConfigDict

from infoclip_mmseg.experiments.ablation.spec import Ablation, AblationError, Evaluation, Run, slug
from infoclip_mmseg.utils.files import value_digest

TRAINING_KEYS = (
    *('train_dataloader', 'train_cfg', 'optim_wrapper', 'param_scheduler', 'auto_scale_lr'),
    *('val_dataloader', 'val_cfg', 'val_evaluator', 'load_from'),
)
"""Keys that an evaluation has no use for; MMEngine wants them all or none."""
PLACE_KEYS = ('work_dir', 'resume')
"""Keys that fingerprints overlook: they do not change what comes out."""
EVALUATION_PREFIXES = ('test_', 'tta_')
"""Keys that begin so are overlooked by a training's fingerprint."""


@dataclass(frozen=True)
class Job:
    """One row with one seed: a training, unless the row has none, and its evaluations.

    Attributes:
        seed: None for a row that is not trained, which is evaluated once.
        folder: Holds everything of the job.
        config: The row's config with its options and seed, with which it is trained.
        tests: Config of each evaluation, by name.
        fingerprint: Of the training, or of the model and checkpoint of an untrained row.
        test_fingerprints: Of each evaluation, by name.
    """

    run: Run
    seed: int | None
    folder: Path
    config: Config
    tests: Mapping[str, Config]
    fingerprint: str
    test_fingerprints: Mapping[str, str]

    @property
    def label(self) -> str:
        """For messages."""
        return self.run.name if self.seed is None else f'{self.run.name}, seed {self.seed}'

    @property
    def train_dir(self) -> Path:
        """Working folder of the training."""
        return self.folder / 'train'

    def test_dir(self, test: str) -> Path:
        """Working folder of an evaluation."""
        return self.folder / 'tests' / slug(test)


def fingerprint(content: Any) -> str:
    """16 hexadecimal digits that depend on plain values only, not on the order of keys."""

    def by_name(value: Any) -> str:
        return str(getattr(value, '__qualname__', None) or type(value).__qualname__)

    return value_digest(content, default=by_name)[:16]


def plan_jobs(ablation: Ablation, cfg_options: Mapping[str, Any] | None = None) -> list[Job]:
    """The jobs of an ablation, row by row, each seed of a row after the other.

    Args:
        ablation: What to run.
        cfg_options: Options for every run, stronger than the run's own.

    Raises:
        AblationError: A config has no training or test set that its role needs.
    """
    jobs = []
    for run in ablation.runs:
        base = Config.fromfile(run.config)
        _merge(base, run.cfg_options, f'run {run.name!r}')
        _merge(base, cfg_options or {}, '--cfg-options')
        tests = {test.name: make_test_config(run, base, test) for test in ablation.tests}
        if run.train and base.get('train_dataloader') is None:
            raise AblationError(
                f'run {run.name!r}: {run.config} has no train_dataloader; set train=False to '
                'evaluate it without training'
            )
        for seed in ablation.seeds if run.train else (None,):
            jobs.append(_make_job(ablation, run, seed, base, tests))
    return jobs


def make_test_config(run: Run, base: Config, test: Evaluation) -> Config:
    """The config of an evaluation, without what belongs to training.

    Without a `config` of the test it is the run's own with the test's `cfg_options`. With one it is
    that config with the run's `model` in its place, and then the test's `cfg_options`: other data
    and metrics for the same model.

    Args:
        run: The row.
        base: The row's config with its options.
        test: The evaluation.

    Raises:
        AblationError: There is no test set.
    """
    cfg = copy.deepcopy(base) if test.config is None else Config.fromfile(test.config)
    if test.config is not None:
        cfg.model = copy.deepcopy(base.model)
    _merge(cfg, test.cfg_options, f'test {test.name!r}')
    if cfg.get('test_dataloader') is None:
        raise AblationError(
            f'run {run.name!r}, test {test.name!r}: {test.config or run.config} has no '
            'test_dataloader'
        )
    for key in TRAINING_KEYS:
        cfg.pop(key, None)
    return cfg


def _make_job(
    ablation: Ablation, run: Run, seed: int | None, base: Config, tests: Mapping[str, Config]
) -> Job:
    configs = {name: copy.deepcopy(cfg) for name, cfg in tests.items()}
    config = copy.deepcopy(base)
    for cfg in (config, *configs.values()):
        _merge(cfg, {'randomness.seed': ablation.seeds[0] if seed is None else seed}, 'seed')
    content: Any = _plain(config, EVALUATION_PREFIXES)
    if not run.train:
        content = [content['model'], run.checkpoint, _file_state(run.checkpoint)]
    folder = 'untrained' if seed is None else f'seed{seed}'
    return Job(
        run=run,
        seed=seed,
        folder=ablation.work_dir / slug(run.name) / folder,
        config=config,
        tests=configs,
        fingerprint=fingerprint(content),
        test_fingerprints={name: fingerprint(_plain(cfg)) for name, cfg in configs.items()},
    )


def _merge(cfg: Config, options: Mapping[str, Any], what: str) -> None:
    try:
        cfg.merge_from_dict(ConfigDict(copy.deepcopy(dict(options))))
    except (TypeError, KeyError, AttributeError) as error:
        raise AblationError(
            f'{what}: options {dict(options)} do not fit the config: {error}'
        ) from error


def _plain(cfg: Config, overlook: tuple[str, ...] = ()) -> dict[str, Any]:
    content = cfg.to_dict()
    return {
        key: value
        for key, value in content.items()
        if key not in PLACE_KEYS and not key.startswith(overlook)
    }


def _file_state(path: str | None) -> list[int]:
    if path is None:
        return []
    state = Path(path).stat()
    return [state.st_size, int(state.st_mtime)]
