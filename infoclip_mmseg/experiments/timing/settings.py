"""What one measurement is about; goes to the measuring process as JSON."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

ALLOCATORS = ('default', 'kept')
DTYPES = ('fp32', 'bf16')
MALLOC_PREFIX = 'MALLOC_'
KEPT = {
    'MALLOC_MMAP_THRESHOLD_': str(1 << 40),
    'MALLOC_TRIM_THRESHOLD_': str(1 << 40),
    'MALLOC_TOP_PAD_': str(256 << 20),
}
"""glibc's variables for 'kept': no block is mapped apart and no freed memory is given back."""
THREAD_VARIABLES = ('OMP_NUM_THREADS', 'MKL_NUM_THREADS')


class BenchmarkError(ValueError):
    """Something that the user can mend; the message says how."""


class SkippedError(Exception):
    """A part that can't be measured here; the message says why."""


@dataclass(frozen=True)
class Setting:
    """One measurement: one part of one side.

    Attributes:
        part: Key of :data:`~infoclip_mmseg.experiments.timing.subjects.SUBJECTS`.
        config: Config file.
        tree: Folder of the clone whose infoclip_mmseg is measured.
        cfg_options: Overrides of the config.
        batch_size: Images of a batch.
        num_classes: T, names in the vocabulary.
        image_size: Side in pixels, or None for the sizes of the config: in training of the crops
            and of the views that CLIP gets, in inference of the image and of the working size.
        dtype: 'fp32' or 'bf16', which runs forward passes under autocast.
        device: 'cpu', 'cuda' or 'cuda:1'.
        threads: Threads of PyTorch; None leaves its default.
        allocator: 'default' leaves glibc as it is, 'kept' keeps it from giving memory back.
        warmup: Calls that are not counted.
        repeats: Calls that are.
        max_memory: Bytes that the process may take on the CPU; None for no limit.
    """

    part: str
    config: str
    tree: str
    cfg_options: dict[str, Any] = field(default_factory=dict)
    batch_size: int = 1
    num_classes: int = 171
    image_size: int | None = None
    dtype: str = 'fp32'
    device: str = 'cpu'
    threads: int | None = None
    allocator: str = 'default'
    warmup: int = 1
    repeats: int = 3
    max_memory: int | None = None

    def to_dict(self) -> dict[str, Any]:
        """As plain values."""
        return asdict(self)


def environment(setting: Setting, base: Mapping[str, str] | None = None) -> dict[str, str]:
    """Environment of the measuring process: allocator and threads as asked for.

    Args:
        setting: The measurement.
        base: What it starts from; None takes this process's.
    """
    env = dict(os.environ if base is None else base)
    env = {name: value for name, value in env.items() if not name.startswith(MALLOC_PREFIX)}
    if setting.allocator == 'kept':
        env.update(KEPT)
    if setting.threads is not None:
        env.update(dict.fromkeys(THREAD_VARIABLES, str(setting.threads)))
    return env
