"""The command line of tools/benchmark.py, and what its options come to."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import torch
from mmengine.config import DictAction

from infoclip_mmseg.experiments.timing.inputs import class_names
from infoclip_mmseg.experiments.timing.machine import available_memory
from infoclip_mmseg.experiments.timing.memory import BATCHES
from infoclip_mmseg.experiments.timing.runs import PARTS, SWEEPS, Plan, Side
from infoclip_mmseg.experiments.timing.settings import ALLOCATORS, DTYPES, BenchmarkError, Setting
from infoclip_mmseg.experiments.timing.worktree import describe_commit, find_commit, worktree

DEFAULT_PARTS = tuple(part for part in PARTS if part not in ('matrix', 'profile'))
MEMORY = 'memory'
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
    other.add_argument('--compare-commit', metavar='REV', help='another commit, in turn')
    add('--parts', nargs='+', choices=[*PARTS, MEMORY], metavar='PART', help=', '.join(PARTS))
    add('--repeats', type=int, default=3, help='calls that count, in each process')
    add('--warmup', type=int, default=1, help='calls before them that do not')
    add('--rounds', type=int, help='processes of each measurement: 1, in comparisons 2')
    add('--batch-size', type=int, default=1)
    add('--num-classes', type=int, default=171)
    add('--image-size', type=int, help='side in pixels, see the top of tools/benchmark.py')
    add('--threads', type=int, help="PyTorch's default if not given")
    add('--dtype', choices=DTYPES, default='fp32', help='bf16 runs under autocast')
    add('--allocator', choices=[*ALLOCATORS, 'both'], default='default', help="glibc's")
    add('--device', default='cpu', help='cpu, cuda, cuda:1')
    add('--max-memory', type=float, help='GB a CPU process may take: 0.9 of what is free')
    add(
        '--sweep',
        nargs='+',
        action='append',
        default=[],
        metavar=('NAME', 'VALUE'),
        help=f'vary one of {", ".join(SWEEPS)}; may be given twice',
    )
    add('--memory-batches', nargs='+', type=int, default=list(BATCHES), help='of --parts memory')
    add(
        '--cfg-options',
        nargs='+',
        action=DictAction,
        metavar='KEY=VALUE',
        help='override keys of the configs, as in tools/train.py',
    )
    add('--out', type=Path, help='folder for the report: work_dirs/benchmark/<name of the config>')
    return parser


def read_sweeps(sweeps: Sequence[Sequence[str]]) -> dict[str, list[int]]:
    """What --sweep asks for.

    Raises:
        BenchmarkError: An unknown name, or values that are no positive numbers.
    """
    found = {}
    for name, *values in sweeps:
        numbers = [int(value) for value in values if value.isdigit() and int(value) > 0]
        if name not in SWEEPS or not numbers or len(numbers) < len(values):
            raise BenchmarkError(
                f'--sweep takes one of {", ".join(SWEEPS)} and positive numbers, such as '
                f'--sweep classes 10 100 1000; got {" ".join([name, *values])}'
            )
        found[name] = sorted(set(numbers))
    return found


def make_plan(args: argparse.Namespace, sides: Sequence[Side]) -> Plan:
    """What the options ask for.

    Raises:
        BenchmarkError: Options do not go together, or can't be had here.
    """
    check_numbers(args)
    sweeps = read_sweeps(args.sweep)
    if sweeps and MEMORY in (args.parts or ()):
        raise BenchmarkError('--parts memory is a table of its own; leave out --sweep')
    class_names(max(args.num_classes, *sweeps.get('classes', [1])))
    check_device(args.device)
    if args.allocator != 'default' and sys.platform != 'linux':
        raise BenchmarkError("--allocator sets variables of glibc; leave it at 'default' here")
    parts = args.parts or (() if sweeps else DEFAULT_PARTS)
    return Plan(
        sides=sides,
        base=make_base(args),
        allocators=ALLOCATORS if args.allocator == 'both' else (args.allocator,),
        parts=[part for part in parts if part != MEMORY],
        sweeps=sweeps,
        rounds=args.rounds or min(len(sides), 2),
    )


def make_base(args: argparse.Namespace) -> Setting:
    """The setting that all measurements share, still without part and config."""
    limit = available_memory() * MEMORY_SHARE
    if args.max_memory is not None:
        limit = args.max_memory * 1e9
    return Setting(
        part='',
        config='',
        tree='',
        cfg_options=args.cfg_options or {},
        batch_size=args.batch_size,
        num_classes=args.num_classes,
        image_size=args.image_size,
        dtype=args.dtype,
        device=args.device,
        threads=args.threads,
        warmup=args.warmup,
        repeats=args.repeats,
        max_memory=int(limit) or None,
    )


def check_numbers(args: argparse.Namespace) -> None:
    """Check that counts are positive.

    Raises:
        BenchmarkError: One is not.
    """
    positive = ('repeats', 'rounds', 'batch_size', 'num_classes', 'image_size', 'threads')
    values = {name: getattr(args, name) for name in (*positive, 'max_memory')}
    wrong = [name for name, value in values.items() if value is not None and value <= 0]
    if min(args.memory_batches) < 1:
        wrong.append('memory_batches')
    if wrong or args.warmup < 0:
        names = ', '.join(f'--{name.replace("_", "-")}' for name in wrong or ['warmup'])
        raise BenchmarkError(f'{names}: expected a positive number (--warmup: 0 or more)')


def check_device(device: str) -> None:
    """Check that a device can be used.

    Raises:
        BenchmarkError: It is unknown, or not there.
    """
    try:
        kind = torch.device(device)
    except RuntimeError as error:
        raise BenchmarkError(f'--device {device!r} is unknown; use cpu or cuda') from error
    count = torch.cuda.device_count()
    if kind.type not in ('cpu', 'cuda') or (kind.type == 'cuda' and (kind.index or 0) >= count):
        raise BenchmarkError(
            f'--device {device!r} can not be used: PyTorch sees {count} CUDA devices; use cpu, or '
            'install a PyTorch with CUDA'
        )


@contextmanager
def open_sides(args: argparse.Namespace, root: Path) -> Iterator[list[Side]]:
    """The sides to compare; another commit is checked out as long as this is open.

    Args:
        args: What the parser gave.
        root: The clone that is measured.

    Raises:
        BenchmarkError: A config or commit is not there.
    """
    with ExitStack() as stack:
        config = check_config(args.config)
        name, commit = config.stem, describe_commit(root)
        sides = [Side(name, str(config), str(root), commit)]
        if args.compare is not None:
            second = check_config(args.compare)
            label = second.stem if second.stem != name else f'{second.stem} (2)'
            sides.append(Side(label, str(second), str(root), commit))
        if args.compare_commit is not None:
            revision = find_commit(root, args.compare_commit)
            tree = stack.enter_context(worktree(root, revision))
            if config.is_relative_to(root):
                config = check_config(tree / config.relative_to(root))
            sides[0] = Side(f'{name} @ {commit}', sides[0].config, str(root), commit)
            label = f'{name} @ {revision[:10]}'
            if label == sides[0].label:
                label += ' (2)'
            sides.append(Side(label, str(config), str(tree), revision))
        yield sides


def check_config(path: str | Path) -> Path:
    """The full path of a config file.

    Raises:
        BenchmarkError: It is not there.
    """
    full = Path(path).expanduser().resolve()
    if not full.is_file():
        raise BenchmarkError(
            f'config {str(path)!r} does not exist (working directory {Path.cwd()})'
        )
    return full
