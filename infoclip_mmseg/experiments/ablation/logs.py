"""What MMEngine leaves in a working folder: scalars, metrics, checkpoints."""

from __future__ import annotations

import json
from pathlib import Path

from infoclip_mmseg.experiments.ablation.spec import AblationError

Scalars = dict[str, float]
TIMES = ('time', 'data_time')


def read_scalars(train_dir: Path) -> list[Scalars]:
    """Logged training scalars by step; where a run was resumed the later log counts.

    Args:
        train_dir: Working folder of a training with MMEngine's LocalVisBackend.

    Returns:
        A dict for each logged step, in order, with `step` in iterations.
    """
    steps: dict[int, Scalars] = {}
    for path in sorted(train_dir.glob('*/vis_data/scalars.json')):
        for line in path.read_text(encoding='utf-8').splitlines():
            try:
                row = json.loads(line)
            except ValueError:  # a killed process left its last line unfinished
                continue
            if 'loss' in row and 'step' in row:
                steps[int(row['step'])] = row
    return [steps[step] for step in sorted(steps)]


def pick_scalars(row: Scalars) -> Scalars:
    """Losses and, behind them, gradient norms out of the scalars of a step."""
    kinds = ('loss', 'grad_norm')
    return {key: value for kind in kinds for key, value in row.items() if kind in key}


def find_checkpoint(train_dir: Path) -> Path | None:
    """The last checkpoint that MMEngine noted in a working folder, None without one."""
    note = train_dir / 'last_checkpoint'
    if not note.is_file():
        return None
    noted = Path(note.read_text().strip())
    here = train_dir / noted.name  # the folder may have been moved since
    return next((path for path in (here, noted) if path.is_file()), None)


def read_metrics(test_dir: Path, before: set[Path]) -> Scalars:
    """The metrics that tools/test.py wrote.

    Args:
        test_dir: Its working folder.
        before: What :func:`metric_files` gave before it was started.

    Raises:
        AblationError: It wrote none.
    """
    written = sorted(metric_files(test_dir) - before)
    if not written:
        raise AblationError(
            f'no metrics in {test_dir}/*/*.json; the config needs a test_evaluator and '
            'default_hooks.logger=dict(type="LoggerHook")'
        )
    metrics = json.loads(written[-1].read_text(encoding='utf-8'))
    numbers = {key: value for key, value in metrics.items() if isinstance(value, (int, float))}
    return {key: float(value) for key, value in numbers.items() if key not in TIMES}


def metric_files(test_dir: Path) -> set[Path]:
    """Files of metrics in the working folder of an evaluation, one for each time it was run."""
    return set(test_dir.glob('*/*.json'))
