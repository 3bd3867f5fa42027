"""What is compared, and the machine that it runs on."""

from __future__ import annotations

import platform
import re
import subprocess
from pathlib import Path
from typing import NamedTuple

import mmcv
import mmseg
import open_clip
import psutil
import torch
from mmengine.utils.dl_utils import collect_env
from torch.utils.collect_env import get_cpu_info, run

from infoclip_mmseg.experiments.processes import ROOT, count_cores
from infoclip_mmseg.experiments.timing.bench import TimingError

CGROUP_LIMITS = ('/sys/fs/cgroup/memory.max', '/sys/fs/cgroup/memory/memory.limit_in_bytes')
MATRIX_FLAGS = ('avx2', 'avx512f', 'avx512_bf16', 'amx_bf16', 'bf16')


class Side(NamedTuple):
    """One of the things compared: a config, and the tree whose infoclip_mmseg is measured."""

    label: str
    config: str
    tree: str
    commit: str


def make_sides(config: str, other: str | None = None, tree: str | None = None) -> list[Side]:
    """The sides to compare: a config, another one, or that of another checkout.

    Raises:
        TimingError: A config or the checkout is not there.
    """
    first = _check_config(config)
    sides = [Side(first.stem, str(first), str(ROOT), describe_commit(ROOT))]
    if other is not None:
        second = _check_config(other)
        label = second.stem if second.stem != first.stem else f'{second.stem} (2)'
        sides.append(sides[0]._replace(label=label, config=str(second)))
    if tree is not None:
        folder = Path(tree).expanduser().resolve()
        if not (folder / 'infoclip_mmseg').is_dir():
            raise TimingError(
                f'--compare-tree: {folder} has no folder infoclip_mmseg; `git worktree add {tree} '
                'REV` checks commit REV of this clone out there'
            )
        if first.is_relative_to(ROOT):
            first = _check_config(folder / first.relative_to(ROOT))
        label = f'{first.stem} in {folder.name}'
        sides.append(Side(label, str(first), str(folder), describe_commit(folder)))
    return sides


def _check_config(path: str | Path) -> Path:
    full = Path(path).expanduser().resolve()
    if not full.is_file():
        raise TimingError(f'config {str(path)!r} does not exist (working directory {Path.cwd()})')
    return full


def describe_commit(tree: Path) -> str:
    """Short id of the commit of a checkout, with '-dirty' where files differ from it."""
    words = ['git', '-C', str(tree), 'describe', '--always', '--dirty', '--exclude=*']
    try:
        return subprocess.run(words, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return 'unknown (no git clone)'


def check_device(device: str) -> None:
    """Check that a device can be used.

    Raises:
        TimingError: It is not there, or neither a CPU nor a CUDA device.
    """
    count = torch.cuda.device_count()
    if device not in ['cpu', *['cuda'][:count], *(f'cuda:{i}' for i in range(count))]:
        raise TimingError(
            f'--device {device!r} can not be used: PyTorch sees {count} CUDA devices; use '
            'cpu, or install a PyTorch with CUDA'
        )


def available_memory() -> int:
    """Bytes that can be had without swapping, by machine and container."""
    texts = [Path(path).read_text() for path in CGROUP_LIMITS if Path(path).is_file()]
    limits = [int(text) for text in texts if text.strip().isdigit()]
    return min([psutil.virtual_memory().available, *limits])


def describe_machine(device: str) -> dict[str, str]:
    """Device, CPU, memory, system and versions, by their titles in a report.

    Behind the name of the CPU are its extensions for matrices, e.g. '... (avx512_bf16, amx_bf16)'.
    """
    said = get_cpu_info(run) or ''
    model = re.search(r'Model name:\s*(.+)', said)
    cpu = model[1] if model else platform.processor() or platform.machine()
    if flags := ', '.join(flag for flag in MATRIX_FLAGS if flag in said.split()):
        cpu = f'{cpu} ({flags})'
    env, memory, name = collect_env(), psutil.virtual_memory(), 'CPU'
    packages = {name: env[name] for name in ('PyTorch', 'TorchVision', 'OpenCV', 'MMEngine')}
    packages |= {module.__name__: module.__version__ for module in (mmcv, mmseg, open_clip)}
    if device != 'cpu':
        gpu = torch.cuda.get_device_properties(device)
        name = f'{gpu.name}, {gpu.total_memory / 1e9:.0f} GB, CUDA {torch.version.cuda}'
    return {
        'device': name,
        'CPU': f'{cpu}, {count_cores()} cores',
        'memory': f'{memory.total / 1e9:.1f} GB, {available_memory() / 1e9:.1f} GB free',
        'load before': f'{psutil.getloadavg()[0]:.1f} processes',
        'system': platform.platform(),
        'Python': platform.python_version(),
        'packages': ', '.join(f'{name} {version}' for name, version in packages.items()),
    }
