"""Outcomes of measurements, and what follows from them (pure functions)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from statistics import median
from typing import Any

from infoclip_mmseg.experiments.timing.measure import summarise

MEASURED = 'measured'
MAIN_SECTION = {
    'train': 'step',
    'train_plain': 'step',
    'inference': 'image',
    'image': 'view',
    'head': 'view',
    'text': 'embeddings',
    'text_train': 'embeddings',
    'teacher': 'views',
    'lpam': 'relation maps',
    'losses': 'task',
    'entropy': 'order 2',
    'matrix': 'product',
}
"""The section whose seconds stand for a part in pictures and rates."""


@dataclass
class Outcome:
    """What one part of one side gave.

    Attributes:
        side: Label of the side.
        allocator: 'default' or 'kept'.
        part: Key of a subject.
        sweep: Name and value of what is varied, such as ('classes', 100); None outside of sweeps.
        status: 'measured', 'skipped' or 'failed'.
        reason: Why it is not measured.
        seconds: Seconds of every call, by section.
        memory: Bytes, see :meth:`~infoclip_mmseg.experiments.timing.measure.PeakMemory.read`.
        info: Further values, such as `images` of a call and the `threads` that ran.
    """

    side: str
    allocator: str
    part: str
    sweep: tuple[str, int] | None = None
    status: str = MEASURED
    reason: str = ''
    seconds: dict[str, list[float]] = field(default_factory=dict)
    memory: dict[str, int] = field(default_factory=dict)
    info: dict[str, Any] = field(default_factory=dict)

    @property
    def key(self) -> tuple[Any, ...]:
        """What it is an outcome of."""
        return self.side, self.allocator, self.part, self.sweep

    @property
    def peak(self) -> int:
        """Peak bytes: of the GPU where it ran on one, else of the process."""
        return self.memory.get('peak_cuda') or self.memory.get('peak_rss', 0)

    @property
    def start(self) -> int:
        """Bytes in use before the first call, read in the same place as the peak."""
        return self.memory.get('start_cuda' if 'peak_cuda' in self.memory else 'start_rss', 0)

    @property
    def own(self) -> int:
        """Bytes of the peak that were not in use before the first call."""
        return max(0, self.peak - self.start)

    def to_dict(self) -> dict[str, Any]:
        """As plain values, with the spread of every section."""
        spreads = {name: summarise(s)._asdict() for name, s in self.seconds.items()}
        return {**asdict(self), 'spread': spreads}


def merge(outcomes: Iterable[Outcome]) -> list[Outcome]:
    """Put the rounds of each measurement together: all seconds, the largest peak."""
    merged: dict[tuple[Any, ...], Outcome] = {}
    for outcome in outcomes:
        known = merged.get(outcome.key)
        if known is None or known.status != MEASURED:
            merged[outcome.key] = known or outcome
        elif outcome.status != MEASURED:
            merged[outcome.key] = outcome
        else:
            merged[outcome.key] = _together(known, outcome)
    return list(merged.values())


def _together(first: Outcome, second: Outcome) -> Outcome:
    seconds = {name: [*s, *second.seconds.get(name, [])] for name, s in first.seconds.items()}
    memory = {name: max(v, second.memory.get(name, 0)) for name, v in first.memory.items()}
    fields = {**asdict(first), 'seconds': seconds, 'memory': memory, 'sweep': first.sweep}
    return Outcome(**fields)


def find(outcomes: Iterable[Outcome], *key: Any) -> Outcome | None:
    """The measured outcome of a side, allocator, part and perhaps sweep, if there is one."""
    wanted = key if len(key) == 4 else (*key, None)
    return next((o for o in outcomes if o.key == wanted and o.status == MEASURED), None)


def seconds_of(outcome: Outcome | None, section: str | None = None) -> float | None:
    """Median seconds of a section, by default the main one."""
    if outcome is None:
        return None
    values = outcome.seconds.get(section or MAIN_SECTION.get(outcome.part, ''))
    return median(values) if values else None


def derive(outcomes: Sequence[Outcome], side: str, allocator: str) -> dict[str, float]:
    """Figures of one side that follow from several measurements.

    Returns:
        Those that can be computed of `distillation_share` (of the time of a step without it),
        `training_images_per_second`, `inference_images_per_second`, `eigenvalues_over_order_2`
        (the loss with its gradient; `, value`: without; `, entropy`: that of a Gram matrix),
        `matrix_flops_per_second`, and for training and inference `flops` of a call,
        `flops_per_second` and their `share_of_matrix_rate`.
    """

    def get(part: str) -> Outcome | None:
        return find(outcomes, side, allocator, part)

    figures: dict[str, float] = {}
    step, plain = seconds_of(get('train')), seconds_of(get('train_plain'))
    if step and plain:
        figures['distillation_share'] = step / plain - 1
    orders = get('entropy')
    for suffix in ('', ', value', ', entropy'):
        fast, slow = (seconds_of(orders, way + suffix) for way in ('order 2', 'eigenvalues'))
        if fast and slow:
            figures[f'eigenvalues_over_order_2{suffix}'] = slow / fast
    rate = _flop_rate(get('matrix'), seconds_of(get('matrix')))
    if rate:
        figures['matrix_flops_per_second'] = rate
    for part, name in (('train', 'training'), ('inference', 'inference')):
        outcome, seconds = get(part), seconds_of(get(part))
        if outcome is not None and seconds:
            figures[f'{name}_images_per_second'] = outcome.info.get('images', 1) / seconds
        profiled = get(f'profile_{part}')
        if profiled is not None and profiled.info.get('flops'):
            figures[f'{name}_flops'] = profiled.info['flops']
        achieved = _flop_rate(profiled, seconds)
        if achieved:
            figures[f'{name}_flops_per_second'] = achieved
            if rate:
                figures[f'{name}_share_of_matrix_rate'] = achieved / rate
    return figures


def _flop_rate(outcome: Outcome | None, seconds: float | None) -> float | None:
    flops = outcome.info.get('flops') if outcome is not None else None
    return flops / seconds if flops and seconds else None
