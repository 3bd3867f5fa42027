"""What one measurement is about; goes to the measuring process as JSON."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

DTYPES = ('fp32', 'bf16')


class TimingError(ValueError):
    """Something that the user can mend; the message says how."""


class SkippedError(Exception):
    """A part that can't be measured here; the message says why."""


@dataclass(frozen=True)
class Setting:
    """One measurement.

    Attributes:
        part: Key of :data:`~infoclip_mmseg.experiments.timing.subjects.SUBJECTS`.
        config: Config file.
        cfg_options: Overrides of the config.
        batch_size: Images of a batch.
        num_classes: T, names in the vocabulary.
        image_size: Side in pixels, or None for the sizes of the config: in training of the crops
            and of the views that CLIP gets, in inference of the image and of the working size.
        dtype: 'fp32' or 'bf16', which runs forward passes under autocast.
        device: 'cpu', 'cuda' or 'cuda:1'.
        threads: Threads of PyTorch; None leaves its default.
        warmup: Calls that are not counted.
        repeats: Calls that are.
        max_memory: Bytes that the process may take on the CPU; None for no limit.
        images: Files that are read or converted in what runs outside of the model.
        workers: Processes that convert them.
    """

    part: str
    config: str
    cfg_options: dict[str, Any] = field(default_factory=dict)
    batch_size: int = 1
    num_classes: int = 171
    image_size: int | None = None
    dtype: str = 'fp32'
    device: str = 'cpu'
    threads: int | None = None
    warmup: int = 1
    repeats: int = 3
    max_memory: int | None = None
    images: int = 200
    workers: int = 1
