#!/usr/bin/env python
"""Time the parts of a model and read their peak memory; compare two configs or two checkouts.

Usage:
  python tools/benchmark.py configs/infoclip_vitb16_coco-stuff.py
  python tools/benchmark.py CONFIG --compare CONFIG2 --parts train inference --allocator both
  git worktree add ../before HEAD~3
  python tools/benchmark.py CONFIG --compare-tree ../before --parts train profile
  python tools/benchmark.py CONFIG --sweep classes 10 100 1000 10000 100000
  python tools/benchmark.py CONFIG --sweep image-size 320 480 640 960
  python tools/benchmark.py CONFIG --compare CONFIG2 --parts memory --memory-batches 1 2 4
  python tools/benchmark.py CONFIG --parts evaluation prepare --images 200 --num-classes 847

Weights are random, class names and images made up at real size: neither data nor downloads are
needed. Every measurement runs in a process of its own; with two sides they go in turn (A B A B).
Written are benchmark.md, benchmark.json, pictures, and measurements.log with what the processes
printed.

Parts: train (a step, its forward and backward pass and optimizer; also without the teacher),
inference (an image with sliding windows, text cached), image and head (one view), text (in
evaluation, and in training with gradients), teacher, lpam, losses, entropy (order 2 against
eigenvalues at 2304 samples). Only if named: matrix (the rate of a large product), profile
(operators by group, and floating-point operations), memory (a table of what a training step takes
by precision, recomputed activations and batch size; what does not fit under --max-memory stays
empty), evaluation (a config's test pipeline by steps, and the metric), loading (its training
pipeline by steps, and the loader with --workers processes, of drawn JPEGs of 480 x 640), prepare
(the conversions of tools/prepare_data.py).

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
from torch.utils.benchmark import select_unit

from infoclip_mmseg.engine.cfg_options import CfgOptions
from infoclip_mmseg.experiments.timing import runs
from infoclip_mmseg.experiments.timing.bench import DTYPES, Setting, TimingError, class_names
from infoclip_mmseg.experiments.timing.report import main_seconds, write_report
from infoclip_mmseg.experiments.timing.sides import (
    Side,
    available_memory,
    check_device,
    describe_machine,
    make_sides,
)

MEMORY_SHARE = 0.9
"""Part of the available memory that a measurement may take."""


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        description='Time the parts of a model and read their peak memory.',
        epilog='tools/benchmark.py says on top what the parts are.',
    )
    add = parser.add_argument
    add('config', help='config file')
    other = parser.add_mutually_exclusive_group()
    other.add_argument('--compare', metavar='CONFIG2', help='a second config, in turn')
    other.add_argument('--compare-tree', metavar='DIR', help='another checkout, in turn')
    names = list(runs.PARTS)
    add('--parts', nargs='+', choices=names, default=[], metavar='PART', help=', '.join(names))
    add('--repeats', type=int, default=3, help='calls that count, in each process')
    add('--warmup', type=int, default=1, help='calls before them that do not')
    add('--rounds', type=int, help='processes of each measurement: 1, in comparisons 2')
    add('--batch-size', type=int, default=1)
    add('--num-classes', type=int, default=171)
    add('--image-size', type=int, help='side in pixels, see the top of tools/benchmark.py')
    add('--threads', type=int, help="PyTorch's default if not given")
    add('--dtype', choices=DTYPES, default='fp32', help='bf16 runs under autocast')
    add('--allocator', choices=[*runs.ALLOCATORS, 'both'], default='default', help="glibc's")
    add('--device', default='cpu', help='cpu, cuda, cuda:1')
    add('--max-memory', type=float, help='GB a CPU process may take: 0.9 of what is free')
    add(
        '--sweep',
        nargs='+',
        action='append',
        default=[],
        metavar=('NAME', 'VALUE'),
        help=f'vary one of {", ".join(runs.SWEEPS)}; may be given twice',
    )
    add('--memory-batches', nargs='+', type=int, default=[1, 2, 4, 8], help='of --parts memory')
    add('--images', type=int, default=200, help='files of --parts evaluation, loading, prepare')
    add('--workers', type=int, default=1, help='processes of --parts loading and prepare')
    add(
        '--cfg-options',
        nargs='+',
        action=CfgOptions,
        default={},
        metavar='KEY=VALUE',
        help='override keys of the configs, as in tools/train.py',
    )
    add('--out', type=Path, help='folder for the report: work_dirs/benchmark/<name of the config>')
    return parser


def check_options(args: argparse.Namespace) -> None:
    """Check options by themselves and together.

    Raises:
        TimingError: Some do not go together, or can't be had here.
    """
    names = 'repeats rounds batch_size num_classes image_size threads max_memory images workers'
    values = {name: getattr(args, name) for name in names.split()}
    values |= dict(warmup=args.warmup + 1, memory_batches=min(args.memory_batches))
    wrong = [name for name, value in values.items() if value is not None and value <= 0]
    if wrong:
        options = ', '.join(f'--{name.replace("_", "-")}' for name in wrong)
        raise TimingError(f'{options}: expected a positive number (--warmup: 0 or more)')
    if args.sweep and 'memory' in args.parts:
        raise TimingError('--parts memory is a table of its own; leave out --sweep')
    if args.allocator != 'default' and sys.platform != 'linux':
        raise TimingError("--allocator sets variables of glibc; leave it at 'default' here")
    check_device(args.device)


def read_sweeps(sweeps: Sequence[Sequence[str]]) -> dict[str, list[int]]:
    """What --sweep asks for.

    Raises:
        TimingError: An unknown name, or values that are no positive numbers.
    """
    numbers = {}
    for name, *values in sweeps:
        numbers[name] = sorted({int(v) for v in values if v.isdigit() and int(v) > 0})
        if name not in runs.SWEEPS or not values or len(numbers[name]) < len(set(values)):
            raise TimingError(
                f'--sweep takes one of {", ".join(runs.SWEEPS)} and positive numbers, such as '
                f'--sweep classes 10 100 1000; got {" ".join([name, *values])}'
            )
    return numbers


def make_plan(
    args: argparse.Namespace, sides: Sequence[Side], sweeps: dict[str, list[int]]
) -> list[runs.Measurement]:
    """The measurements that the options ask for.

    Raises:
        TimingError: There are not so many class names.
    """
    class_names(max(args.num_classes, *sweeps.get('classes', [1])))
    limit = available_memory() * MEMORY_SHARE
    if args.max_memory is not None:
        limit = args.max_memory * 1e9
    shared = 'cfg_options batch_size num_classes image_size dtype device threads warmup repeats'
    fields = {name: getattr(args, name) for name in f'{shared} images workers'.split()}
    return runs.plan(
        sides,
        Setting(part='', config='', max_memory=int(limit), **fields),
        args.parts or (() if sweeps else runs.DEFAULT_PARTS),
        sweeps,
        tuple(runs.ALLOCATORS) if args.allocator == 'both' else (args.allocator,),
        args.rounds or len(sides),
        args.memory_batches,
    )


def make_header(
    args: argparse.Namespace, sides: Sequence[Side], command: Sequence[str]
) -> dict[str, str]:
    """What the report says on top."""
    size = args.image_size or 'as configured'
    return {
        'date': datetime.now().astimezone().strftime('%Y-%m-%d %H:%M %Z'),
        'command': shlex.join(['python', 'tools/benchmark.py', *command]),
        **{f'side {i}': f'{s.label}, commit {s.commit}' for i, s in enumerate(sides, 1)},
        **describe_machine(args.device),
        'threads': str(args.threads or torch.get_num_threads()),
        'allocator': 'default and kept' if args.allocator == 'both' else args.allocator,
        'dtype': args.dtype,
        'input': f'batch {args.batch_size}, {args.num_classes} classes, image size {size}',
        'calls': f'{args.rounds or len(sides)} processes, each {args.warmup} to warm up and '
        f'{args.repeats} timed',
    }


def describe_outcome(one: runs.Measurement) -> str:
    """A line for a measurement that has been made."""
    if one.status != runs.MEASURED:
        return f'{one.label}: {one.status}: {one.reason}'
    seconds = main_seconds(one)
    unit, scale = select_unit(seconds)
    return f'{one.label}: {seconds / scale:.3g} {unit}, {one.peak / 1e9:.2f} GB'


def measure_all(
    planned: Sequence[runs.Measurement], log: Path, made: list[runs.Measurement]
) -> None:
    """Make the measurements and show what runs; each is added to a list as it comes."""
    columns = (BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(TextColumn('{task.description}'), *columns) as progress:
        bar = progress.add_task('', total=len(planned))

        def show(one: runs.Measurement) -> None:
            progress.update(bar, description=f'now: {one.label}')

        for one in runs.run_all(planned, log, show):
            made.append(one)
            progress.console.out(describe_outcome(one), highlight=False)
            progress.advance(bar)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program; bad input ends it with one error and exit code 2, a failed part with 1."""
    parser = build_parser()
    command = list(sys.argv[1:] if argv is None else argv)
    args = parser.parse_args(command)
    made: list[runs.Measurement] = []
    stopped = False
    try:
        check_options(args)
        sweeps = read_sweeps(args.sweep)
        sides = make_sides(args.config, args.compare, args.compare_tree)
        planned = make_plan(args, sides, sweeps)
        header = make_header(args, sides, command)
        folder = args.out or Path('work_dirs', 'benchmark', Path(args.config).stem)
        folder.mkdir(parents=True, exist_ok=True)
        log = folder / 'measurements.log'
        log.unlink(missing_ok=True)
        try:
            measure_all(planned, log, made)
        except KeyboardInterrupt:
            stopped = True
        page = write_report(folder, header, made, sides, sweeps)
    except (TimingError, OSError) as error:
        parser.exit(2, f'{parser.prog}: error: {error}\n')
    print(f'\n{page}\nwritten to {folder}/')
    if stopped:
        parser.exit(130, f'{parser.prog}: stopped; the report holds what was measured until then\n')
    return int(any(one.status == 'failed' for one in made))


if __name__ == '__main__':
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # writes the report on the way out
    sys.exit(main())
