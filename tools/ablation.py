#!/usr/bin/env python
"""Train and evaluate a list of configs over seeds; write tables and pictures of the outcome.

Usage: python tools/ablation.py configs/world/ablation.py [--jobs 2] [--gpus 4] [...]

Started again it goes on where it was stopped: what is finished is not run again, and a training
that left a checkpoint is resumed. infoclip_mmseg/experiments/ablation/spec.py says what the file
may hold.
"""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from infoclip_mmseg.engine.cfg_options import CfgOptions
from infoclip_mmseg.experiments.ablation.jobs import Job, plan_jobs
from infoclip_mmseg.experiments.ablation.report import describe, write_outputs
from infoclip_mmseg.experiments.ablation.spec import (
    Ablation,
    AblationError,
    check_seeds,
    read_ablation,
)
from infoclip_mmseg.experiments.ablation.state import check_changed, find_pending, locked
from infoclip_mmseg.experiments.ablation.worker import Report, Workplace, run_job
from infoclip_mmseg.experiments.processes import ProgramError, gpu_names

TOOLS = Path(__file__).resolve().parent
ETA_PERIOD = 24 * 3600.0
"""Seconds of the past by which the remaining time is estimated."""


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(description='Train and evaluate configs over seeds.')
    add = parser.add_argument
    add('file', help='ablation file')
    add('--seeds', nargs='+', type=int, help="in place of the file's")
    add('--runs', nargs='+', metavar='NAME', help='run only these; the tables show all')
    add('--work-dir', type=Path, help="in place of the file's")
    add(
        '--cfg-options',
        nargs='+',
        action=CfgOptions,
        metavar='KEY=VALUE',
        help='override keys of the config of every run, as in tools/train.py',
    )
    add('--jobs', type=int, default=1, help='runs side by side, which share cores and GPUs')
    add('--gpus', type=int, default=0, help='GPUs of each run, over tools/dist_*.sh')
    add('--redo', action='store_true', help='run again what was run with another config')
    add('--only-collect', action='store_true', help='run nothing, write tables and pictures')
    return parser


def prepare(args: argparse.Namespace) -> tuple[Ablation, list[Job]]:
    """Read the ablation file and apply the options.

    Returns:
        The ablation and all of its jobs.

    Raises:
        AblationError: The file, a config or an option can't be used.
    """
    if args.jobs < 1 or args.gpus < 0 or (args.redo and args.only_collect):
        raise AblationError(
            f'got --jobs {args.jobs} --gpus {args.gpus}; expected at least 1 and 0, and not both '
            '--redo and --only-collect'
        )
    ablation = read_ablation(args.file)
    seeds = ablation.seeds if args.seeds is None else check_seeds(args.seeds)
    ablation = replace(ablation, seeds=seeds, work_dir=args.work_dir or ablation.work_dir)
    names = [run.name for run in ablation.runs]
    unknown = [name for name in args.runs or () if name not in names]
    if unknown:
        raise AblationError(f'--runs: there is no {unknown}; expected some of {names}')
    return ablation, plan_jobs(ablation, args.cfg_options)


class Display:
    """A bar for all jobs, and below it one for each that is under way."""

    def __init__(self, count: int) -> None:
        columns = (BarColumn(), TimeElapsedColumn(), TimeRemainingColumn())
        self.progress = Progress(
            TextColumn('{task.description}'), *columns, speed_estimate_period=ETA_PERIOD
        )
        self.total = self.progress.add_task('all runs', total=count)
        self.done: dict[str, float] = {}

    @contextmanager
    def show(self, job: Job) -> Iterator[Report]:
        """Show the bar of a job; gives the function that moves it."""
        task = self.progress.add_task(job.label, total=1.0)

        def report(what: str, fraction: float) -> None:
            self.done[job.label] = fraction
            self.progress.update(task, description=f'{job.label}: {what}', completed=fraction)
            self.progress.update(self.total, completed=sum(list(self.done.values())))

        try:
            yield report
        finally:
            report('end', 1.0)
            self.progress.remove_task(task)


def run_all(jobs: Sequence[Job], place: Workplace, figures: Sequence[str]) -> bool:
    """Run jobs side by side; a failed one is reported and does not stop the others.

    Returns:
        Whether all succeeded.
    """
    display, success = Display(len(jobs)), True

    def work(job: Job) -> None:
        with display.show(job) as report:
            run_job(job, place, report)

    with display.progress, ThreadPoolExecutor(max_workers=place.jobs) as pool:
        futures = {pool.submit(work, job): job for job in jobs}
        try:
            for future in as_completed(futures):
                job, error = futures[future], future.exception()
                success &= error is None
                line = describe(job, figures) if error is None else f'FAILED: {explain(error)}'
                display.progress.console.out(f'{job.label}: {line}', highlight=False)
        finally:
            place.stopped.set()
            pool.shutdown(cancel_futures=True)
    return success


def explain(error: BaseException) -> str:
    """The message of an error, with its kind where the message was not meant for users."""
    return str(error) if isinstance(error, (ProgramError, AblationError)) else repr(error)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program; bad input ends it with one error and exit code 2, a failed run with 1."""
    parser = build_parser()
    args = parser.parse_args(argv)
    success = True
    try:
        ablation, jobs = prepare(args)
        selected = [job for job in jobs if args.runs is None or job.run.name in args.runs]
        if args.only_collect:
            check_changed(selected, redo=False)
        else:
            with locked(ablation.work_dir) as lock:
                check_changed(selected, args.redo)
                pending = find_pending(selected)
                place = Workplace(TOOLS, args.jobs, args.gpus, gpu_names(), (lock,))
                print(f'{len(selected) - len(pending)} of {len(selected)} runs are finished')
                success = run_all(pending, place, ablation.figures)
        problems = write_outputs(ablation, jobs)
    except (AblationError, FileNotFoundError) as error:
        parser.exit(2, f'{parser.prog}: error: {error}\n')
    except KeyboardInterrupt:
        parser.exit(130, f'{parser.prog}: stopped; start it again to go on\n')
    print(f'\n{(ablation.work_dir / "table.md").read_text(encoding="utf-8")}')
    print(f'written to {ablation.work_dir}/')
    for problem in problems:
        print(f'{parser.prog}: {problem}', file=sys.stderr)
    return 0 if success and not problems else 1


if __name__ == '__main__':
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # end the programs started, too
    sys.exit(main())
