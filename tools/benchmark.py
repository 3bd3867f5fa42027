#!/usr/bin/env python
"""Time the parts of a model and read their peak memory; compare two configs or two commits.

Usage:
  python tools/benchmark.py configs/infoclip_vitb16_coco-stuff.py
  python tools/benchmark.py CONFIG --compare CONFIG2 --parts train inference --allocator both
  python tools/benchmark.py CONFIG --compare-commit HEAD~3 --parts train profile
  python tools/benchmark.py CONFIG --sweep classes 10 100 1000 10000 100000
  python tools/benchmark.py CONFIG --sweep image-size 320 480 640 960
  python tools/benchmark.py CONFIG --compare CONFIG2 --parts memory

Weights are random, class names and images made up at real size: neither data nor downloads are
needed. Every measurement runs in a process of its own; with two sides they go in turn (A B A B).
Written are benchmark.md, benchmark.json and pictures.

Parts: train (a step, its forward and backward pass and optimizer; also without the teacher),
inference (an image with sliding windows, text cached), image and head (one view), text (in
evaluation, and in training with gradients), teacher, lpam, losses, entropy (order 2 against
eigenvalues at 2304 samples), matrix (the rate of a large product), profile (operators by group, and
floating-point operations), memory (training by batch size, precision and checkpointing; see
infoclip_mmseg/experiments/timing/memory.py).

--allocator kept sets glibc's MALLOC_MMAP_THRESHOLD_ and MALLOC_TRIM_THRESHOLD_ so high that no
freed memory goes back to the system, and MALLOC_TOP_PAD_ to 256 MiB; tools/train.py and
tools/test.py do the like for blocks of up to 1 GiB. 'default' leaves glibc alone. Other MALLOC_
variables are taken out of the environment.

--image-size and --sweep image-size set the side of crops and of the views that CLIP gets (a
multiple of its patch); for sliding-window inference that of the image and of the working size.
More than 2000 classes are given random text embeddings in inference, instead of encoded ones.
"""

from __future__ import annotations

import argparse
import shlex
import signal
import sys
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from infoclip_mmseg.experiments.timing.command import MEMORY, build_parser, make_plan, open_sides
from infoclip_mmseg.experiments.timing.machine import describe_machine
from infoclip_mmseg.experiments.timing.memory import Cell, count_jobs, memory_guide
from infoclip_mmseg.experiments.timing.plots import draw_operators, draw_sweep
from infoclip_mmseg.experiments.timing.report import (
    make_json,
    make_markdown,
    seconds_text,
    write_report,
)
from infoclip_mmseg.experiments.timing.results import MEASURED, Outcome, merge, seconds_of
from infoclip_mmseg.experiments.timing.runs import Job, Plan, plan_jobs, run_job, run_jobs
from infoclip_mmseg.experiments.timing.settings import BenchmarkError

ROOT = Path(__file__).resolve().parents[1]


def make_header(args: argparse.Namespace, plan: Plan, command: Sequence[str]) -> dict[str, str]:
    """What the report says on top."""
    base = plan.base
    return {
        'date': datetime.now().astimezone().strftime('%Y-%m-%d %H:%M %Z'),
        'command': shlex.join(['python', 'tools/benchmark.py', *command]),
        **{f'side {i}': f'{s.label}, commit {s.commit}' for i, s in enumerate(plan.sides, 1)},
        **describe_machine(base.device),
        'threads': str(base.threads or torch.get_num_threads()),
        'allocator': ' and '.join(plan.allocators),
        'dtype': base.dtype,
        'input': f'batch {base.batch_size}, {base.num_classes} classes, image size '
        f'{base.image_size or "as configured"}',
        'calls': f'{plan.rounds} processes, each {base.warmup} to warm up and {base.repeats} timed',
    }


class Display:
    """A bar over all measurements, and a line for each that is done."""

    def __init__(self, total: int) -> None:
        columns = (BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        self.progress = Progress(TextColumn('{task.description}'), *columns)
        self.task = self.progress.add_task('measuring', total=total)

    def report(self, job: Job, outcome: Outcome) -> None:
        """Show an outcome."""
        seconds = seconds_of(outcome)
        if outcome.status != MEASURED:
            text = f'{outcome.status}: {outcome.reason}'
        else:
            text = f'{outcome.peak / 1e9:.2f} GB'
            text = f'{seconds_text(seconds)}, {text}' if seconds is not None else text
        self.progress.console.out(f'{job.label}: {text}', highlight=False)
        self.progress.advance(self.task)

    def run(self, job: Job) -> Outcome:
        """Make one measurement and show it."""
        outcome = run_job(job)
        self.report(job, outcome)
        return outcome


def measure_all(
    args: argparse.Namespace, plan: Plan, outcomes: list[Outcome], cells: list[Cell]
) -> None:
    """Run the plan; what is measured is added to both lists as it comes."""
    jobs = plan_jobs(plan)
    guide = MEMORY in (args.parts or ())
    total = len(jobs) + (count_jobs(len(plan.sides), len(args.memory_batches)) if guide else 0)
    display = Display(total)
    with display.progress:
        for outcome in run_jobs(jobs, display.report):
            outcomes.append(outcome)
        if guide:
            limit = plan.base.max_memory or 0
            if plan.base.device != 'cpu':
                limit = torch.cuda.get_device_properties(plan.base.device).total_memory
            batches = args.memory_batches
            for cell in memory_guide(plan.sides, plan.base, batches, limit, display.run):
                cells.append(cell)


def write_outputs(
    folder: Path, header: dict[str, str], plan: Plan, outcomes: list[Outcome], cells: list[Cell]
) -> str:
    """Write report and pictures; returns the page."""
    merged = merge(outcomes)
    files = draw_operators(merged, folder)
    for name in plan.sweeps:
        files += draw_sweep(merged, name, folder)
    pictures = [file.name for file in files if file.suffix == '.png']
    page = make_markdown(header, merged, plan.sides, cells, pictures)
    write_report(folder, make_json(header, merged, plan.sides, cells), page)
    return page


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program; bad input ends it with one error and exit code 2, a failed part with 1."""
    parser = build_parser()
    command = list(sys.argv[1:] if argv is None else argv)
    args = parser.parse_args(command)
    outcomes: list[Outcome] = []
    cells: list[Cell] = []
    stopped = False
    try:
        with open_sides(args, ROOT) as sides:
            plan = make_plan(args, sides)
            header = make_header(args, plan, command)
            folder = args.out or Path('work_dirs', 'benchmark', Path(args.config).stem)
            folder.mkdir(parents=True, exist_ok=True)
            try:
                measure_all(args, plan, outcomes, cells)
            except KeyboardInterrupt:
                stopped = True
            page = write_outputs(folder, header, plan, outcomes, cells)
    except (BenchmarkError, OSError) as error:
        parser.exit(2, f'{parser.prog}: error: {error}\n')
    print(f'\n{page}\nwritten to {folder}/')
    if stopped:
        parser.exit(130, f'{parser.prog}: stopped; the report holds what was measured until then\n')
    return int(any(outcome.status == 'failed' for outcome in outcomes))


if __name__ == '__main__':
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # writes the report on the way out
    sys.exit(main())
