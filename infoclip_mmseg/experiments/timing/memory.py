"""The memory guide: peak memory of a training step by model, precision, checkpointing and batch.

Small trainings (one and two images, an eighth and a quarter of the classes) are measured first.
What they took gives an estimate for every cell of the table; cells that fit into memory are
measured, the others are computed from all that was measured:

    peak(B, T) = in use + d + a T + B (b + c T)

B images, T classes. In use are, before the step, the parameters of student and teacher, the
optimizer state and on a CPU the code, and then the gradients. d stands for what the libraries set
up in the first step, a for the text tower's activations of a class, b and c for other activations
of an image, and of an image and class. All four are at least 0 and fitted so that relative errors
are least.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from infoclip_mmseg.experiments.timing.results import MEASURED, Outcome
from infoclip_mmseg.experiments.timing.runs import Job, Side
from infoclip_mmseg.experiments.timing.settings import DTYPES, Setting

BATCHES = (1, 2, 4, 8)
GRADIENT_BYTES = 4
CHECKPOINTING = {
    'off': {'model.backbone.with_cp': False, 'model.decode_head.with_cp': False},
    'head': {'model.backbone.with_cp': False, 'model.decode_head.with_cp': True},
    'all': {'model.backbone.with_cp': True, 'model.decode_head.with_cp': True},
}
"""Where activations are recomputed in the backward pass, and the options for that."""
Load = tuple[int, int]
"""Images of a batch and classes."""


class Row(NamedTuple):
    """Cells of the guide that share a model, a precision and checkpointing."""

    side: Side
    dtype: str
    checkpointing: str


class Cell(NamedTuple):
    """Peak bytes at one batch size; ``reason`` says why it is computed and not measured."""

    row: Row
    batch_size: int
    peak: float
    measured: bool
    reason: str = ''


class Footprint(NamedTuple):
    """The model of the module's docstring, in bytes; ``static`` is in use + d."""

    static: float
    by_class: float
    by_image: float
    by_image_and_class: float

    def peak(self, batch_size: int, num_classes: int) -> float:
        """Peak bytes of a training step."""
        by_image = self.by_image + self.by_image_and_class * num_classes
        return self.static + self.by_class * num_classes + batch_size * by_image


def fit_footprint(static: float, peaks: Mapping[Load, float]) -> Footprint:
    """Fit the model to measured peaks.

    Args:
        static: Bytes in use before any activation.
        peaks: Measured peak bytes, four or more, of different loads.
    """
    loads = np.array(list(peaks), dtype=float)
    values = np.array(list(peaks.values()), dtype=float)
    batch, classes = loads.T
    terms = np.stack([np.ones_like(batch), classes, batch, batch * classes], axis=1)
    terms = terms / values[:, None]
    scale = terms.max(axis=0)
    constant, *factors = _least_squares(terms / scale, (values - static) / values) / scale
    return Footprint(static + float(constant), *map(float, factors))


def _least_squares(terms: NDArray, values: NDArray) -> NDArray:
    """Factors (k,), none negative, for which terms (n, k) come closest to values (n,).

    Every subset of the terms is tried, which is fine for a few.
    """
    count = terms.shape[1]
    best, least = np.zeros(count), float(np.square(values).sum())
    for size in range(1, count + 1):
        for chosen in map(list, itertools.combinations(range(count), size)):
            found = np.linalg.lstsq(terms[:, chosen], values, rcond=None)[0]
            error = float(np.square(terms[:, chosen] @ found - values).sum())
            if found.min() >= 0 and error < least:
                best, least = np.zeros(count), error
                best[chosen] = found
    return best


def probe_loads(num_classes: int) -> list[Load]:
    """The small trainings of the docstring."""
    few, more = max(num_classes // 8, 1), max(num_classes // 4, 2)
    return [(batch, classes) for batch in (1, 2) for classes in (few, more)]


def memory_guide(
    sides: Sequence[Side],
    base: Setting,
    batches: Sequence[int],
    limit: int,
    run: Callable[[Job], Outcome],
) -> Iterator[Cell]:
    """Measure or compute every cell.

    Args:
        sides: Models.
        base: Setting that all cells share; its precision and batch size are not used.
        batches: Batch sizes.
        limit: Bytes that there are; 0 where it is not known, then all is tried.
        run: Makes a measurement.

    Yields:
        The cells row by row; none for a row whose small trainings do not run.
    """
    for side in sides:
        for dtype in DTYPES:
            for checkpointing in CHECKPOINTING:
                row = Row(side, dtype, checkpointing)
                yield from _fill(row, base, batches, limit, run)


def count_jobs(sides: int, batches: int) -> int:
    """At most how many measurements :func:`memory_guide` makes."""
    return sides * len(DTYPES) * len(CHECKPOINTING) * (len(probe_loads(8)) + batches)


def _fill(
    row: Row, base: Setting, batches: Sequence[int], limit: int, run: Callable[[Job], Outcome]
) -> list[Cell]:
    classes = base.num_classes
    peaks: dict[Load, float] = {}
    static = 0.0
    for load in probe_loads(classes):
        outcome = run(_job(row, base, load))
        if outcome.status != MEASURED:
            return []
        static = outcome.start + GRADIENT_BYTES * outcome.info['trained']
        peaks[load] = outcome.peak
    reasons = {}
    for batch in sorted(batches):
        estimate = fit_footprint(static, peaks).peak(batch, classes)
        if limit and estimate > limit:
            reasons[batch] = f'about {estimate / 1e9:.0f} GB, more than {limit / 1e9:.0f}'
            continue
        outcome = run(_job(row, base, (batch, classes)))
        if outcome.status == MEASURED:
            peaks[batch, classes] = outcome.peak
        else:
            reasons[batch] = outcome.reason
    model = fit_footprint(static, peaks)
    return [
        Cell(row, batch, peaks[batch, classes], True)
        if batch not in reasons
        else Cell(row, batch, model.peak(batch, classes), False, reasons[batch])
        for batch in batches
    ]


def _job(row: Row, base: Setting, load: Load) -> Job:
    options = {**base.cfg_options, **CHECKPOINTING[row.checkpointing]}
    setting = replace(
        base,
        part='memory',
        config=row.side.config,
        tree=row.side.tree,
        cfg_options=options,
        dtype=row.dtype,
        batch_size=load[0],
        num_classes=load[1],
        warmup=0,
        repeats=1,
    )
    return Job(row.side, setting)
