"""What a benchmark ran on."""

from __future__ import annotations

import os
import platform
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path

import torch

CPU_INFO, MEMORY_INFO = Path('/proc/cpuinfo'), Path('/proc/meminfo')
CGROUP_LIMITS = ('/sys/fs/cgroup/memory.max', '/sys/fs/cgroup/memory/memory.limit_in_bytes')
MATRIX_FLAGS = ('avx2', 'avx512f', 'avx512_bf16', 'amx_bf16', 'bf16')
PACKAGES: Sequence[Sequence[str]] = (
    ('torch',),
    ('torchvision',),
    ('onedl-mmengine', 'mmengine'),
    ('onedl-mmcv', 'mmcv'),
    ('onedl-mmsegmentation', 'mmsegmentation'),
    ('open_clip_torch',),
)
"""Distributions that matter for speed, each with its other names."""


def cpu_model() -> str:
    """Name of the CPU with its extensions for matrices, e.g. '... (avx512_bf16, amx_bf16)'."""
    fields = _fields(CPU_INFO)
    name = fields.get('model name') or platform.processor() or platform.machine() or 'unknown'
    flags = (fields.get('flags') or fields.get('Features') or '').split()
    found = ', '.join(flag for flag in MATRIX_FLAGS if flag in flags)
    return f'{name} ({found})' if found else name


def device_name(device: str) -> str:
    """The device as one would tell it: a GPU's name, or 'CPU'."""
    if torch.device(device).type != 'cuda':
        return 'CPU'
    gpu = torch.cuda.get_device_properties(torch.device(device))
    return f'{gpu.name}, {gpu.total_memory / 1e9:.0f} GB, CUDA {torch.version.cuda}'


def cores() -> int:
    """Processor cores that this process may use."""
    if hasattr(os, 'sched_getaffinity'):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def total_memory() -> int:
    """Bytes of memory of the machine or container; 0 where the system does not tell."""
    return min([_memory('MemTotal'), *_cgroup_limits()]) if _memory('MemTotal') else 0


def available_memory() -> int:
    """Bytes that can be had without swapping; 0 where the system does not tell."""
    return min([_memory('MemAvailable'), *_cgroup_limits()]) if _memory('MemAvailable') else 0


def versions() -> dict[str, str]:
    """Version of each package that matters for speed."""
    found = {}
    for names in PACKAGES:
        for name in names:
            try:
                found[name] = metadata.version(name)
                break
            except metadata.PackageNotFoundError:
                continue
    return found


def describe_machine(device: str) -> dict[str, str]:
    """Device, CPU, memory, system and versions, by their titles in a report."""
    load = f'{os.getloadavg()[0]:.1f}' if hasattr(os, 'getloadavg') else 'unknown'
    return {
        'device': device_name(device),
        'CPU': f'{cpu_model()}, {cores()} cores',
        'memory': f'{total_memory() / 1e9:.1f} GB',
        'load before': f'{load} processes',
        'system': f'{platform.system()} {platform.release()}, {" ".join(platform.libc_ver())}',
        'Python': platform.python_version(),
        'packages': ', '.join(f'{name} {version}' for name, version in versions().items()),
    }


def _fields(path: Path) -> dict[str, str]:
    """The first value of each key of a file with lines of 'key : value'."""
    try:
        lines = path.read_text(encoding='utf-8').splitlines()
    except OSError:
        return {}
    fields: dict[str, str] = {}
    for line in lines:
        key, _, value = line.partition(':')
        fields.setdefault(key.strip(), value.strip())
    return fields


def _memory(key: str) -> int:
    return 1024 * int(_fields(MEMORY_INFO).get(key, '0 kB').split()[0])


def _cgroup_limits() -> list[int]:
    texts = [Path(path).read_text().strip() for path in CGROUP_LIMITS if Path(path).is_file()]
    return [int(text) for text in texts if text.isdigit()]
