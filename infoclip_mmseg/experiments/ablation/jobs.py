"""The jobs of an ablation: one row with one seed each, its configs and what of it is finished."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmengine.config import Config, ConfigDict

from infoclip_mmseg.experiments.ablation.spec import Ablation, AblationError, Evaluation, Run, slug
from infoclip_mmseg.utils.files import value_digest, write_text

TRAINING_KEYS = (
    *('train_dataloader', 'train_cfg', 'optim_wrapper', 'param_scheduler', 'auto_scale_lr'),
    *('val_dataloader', 'val_cfg', 'val_evaluator', 'load_from'),
)
"""Keys that an evaluation has no use for; MMEngine wants them all or none."""
PLACE_KEYS = ('work_dir', 'resume')
"""Keys that fingerprints overlook: they do not change what comes out."""
EVALUATION_PREFIXES = ('test_', 'tta_')
"""Keys that begin so are overlooked by a training's fingerprint."""
TRAINING = 'training (or model)'


@dataclass(frozen=True)
class Job:
    """One row with one seed (None for a row without training), and the config of each evaluation.

    `folder` holds everything of the job; in result.json what is finished, and with which config it
    was run: `train` and, by name, `tests`.
    """

    run: Run
    seed: int | None
    folder: Path
    config: Config
    tests: Mapping[str, Config]

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

    @property
    def fingerprint(self) -> str:
        """Of the training, or of the model and checkpoint of an untrained row."""
        content, path = _plain(self.config, EVALUATION_PREFIXES), self.run.checkpoint
        if self.run.train:
            return fingerprint(content)
        state = [] if path is None else [Path(path).stat().st_size, int(Path(path).stat().st_mtime)]
        return fingerprint([content['model'], path, state])

    def test_fingerprint(self, test: str) -> str:
        """Of an evaluation."""
        return fingerprint(_plain(self.tests[test]))

    def read_result(self) -> dict[str, Any]:
        """What is in result.json; an empty dict for a job that was never started.

        Raises:
            AblationError: The file is damaged.
        """
        path = self.folder / 'result.json'
        try:
            return json.loads(path.read_text(encoding='utf-8')) if path.is_file() else {}
        except ValueError as error:
            raise AblationError(
                f'{path} is damaged ({error}); delete its folder to run it again'
            ) from error

    def write_result(self, result: Mapping[str, Any]) -> None:
        """Write result.json in one step, so that it is never half there."""
        write_text(self.folder / 'result.json', json.dumps(result, indent=2) + '\n')

    def changed(self, result: Mapping[str, Any]) -> list[str]:
        """What was run with another config than there is now: TRAINING or names of tests."""
        if result and result['train']['fingerprint'] != self.fingerprint:
            return [TRAINING]
        done = {name: test for name, test in result.get('tests', {}).items() if name in self.tests}
        return [n for n, test in done.items() if test['fingerprint'] != self.test_fingerprint(n)]

    def remaining(self, result: Mapping[str, Any]) -> tuple[bool, list[str]]:
        """Whether the training is still to be done, and the names of the tests that are."""
        trained = bool(result.get('train', {}).get('finished'))
        return not trained, [name for name in self.tests if name not in result.get('tests', {})]


def fingerprint(content: Any) -> str:
    """16 hexadecimal digits that depend on plain values only, not on the order of keys."""
    return value_digest(content, lambda x: getattr(x, '__qualname__', type(x).__qualname__))[:16]


def plan_jobs(ablation: Ablation, cfg_options: Mapping[str, Any] | None = None) -> list[Job]:
    """The jobs of an ablation, row by row, each seed of a row after the other.

    ``cfg_options`` are for every run, stronger than the run's own.

    Raises:
        AblationError: A config has no training or test set that its role needs.
    """
    jobs = []
    for run in ablation.runs:
        base = _merge(Config.fromfile(run.config), run.cfg_options, f'run {run.name!r}')
        _merge(base, cfg_options or {}, '--cfg-options')
        tests = {test.name: make_test_config(run, base, test) for test in ablation.tests}
        if run.train and base.get('train_dataloader') is None:
            raise AblationError(
                f'run {run.name!r}: {run.config} has no train_dataloader; set train=False to '
                'evaluate it without training'
            )
        for seed in ablation.seeds if run.train else (None,):
            option = {'randomness.seed': ablation.seeds[0] if seed is None else seed}
            config, *seeded = (
                _merge(copy.deepcopy(cfg), option, 'seed') for cfg in (base, *tests.values())
            )
            name = 'untrained' if seed is None else f'seed{seed}'
            folder = ablation.work_dir / slug(run.name) / name
            jobs.append(Job(run, seed, folder, config, dict(zip(tests, seeded))))
    return jobs


def make_test_config(run: Run, base: Config, test: Evaluation) -> Config:
    """The config of an evaluation, without what belongs to training.

    Without a `config` of the test it is the run's own (`base`) with the test's `cfg_options`. With
    one it is that config with the run's `model` in its place, and then the test's `cfg_options`:
    other data and metrics for the same model.

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


def _merge(cfg: Config, options: Mapping[str, Any], what: str) -> Config:
    """Put options into a config, and return it."""
    try:
        cfg.merge_from_dict(ConfigDict(copy.deepcopy(dict(options))))
    except (TypeError, KeyError, AttributeError) as error:
        raise AblationError(
            f'{what}: options {dict(options)} do not fit the config: {error}'
        ) from error
    return cfg


def _plain(cfg: Config, overlook: tuple[str, ...] = ()) -> dict[str, Any]:
    content = cfg.to_dict().items()
    return {k: v for k, v in content if k not in PLACE_KEYS and not k.startswith(overlook)}
