"""Measurements: which ones a plan needs, and a fresh process for each, one after the other."""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import product
from pathlib import Path
from typing import Any

from infoclip_mmseg.experiments.processes import ProgramError, program_environment, run_program
from infoclip_mmseg.experiments.timing.bench import DTYPES, Setting, TimingError
from infoclip_mmseg.experiments.timing.measure import out_of_memory
from infoclip_mmseg.experiments.timing.sides import Side
from infoclip_mmseg.experiments.timing.subjects import SUBJECTS

START = """
import sys
sys.path[:1] = sys.argv[1:3]  # the measured tree; for `timing`, the folder that it is in
from timing.worker import main
del sys.path[1]
main(sys.argv[1], *sys.argv[3:])
""".strip()
"""Program of the measuring process."""
NAMED_ONLY = ('matrix', 'memory', 'evaluation', 'loading', 'prepare', 'profile')
PARTS: dict[str, tuple[str, ...]] = {
    **{subject: (subject,) for subject in SUBJECTS if '_' not in subject},
    'train': ('train', 'train_plain'),
    'text': ('text', 'text_train'),
    'profile': ('profile_train', 'profile_inference'),
}
"""What can be asked for, and the subjects that it consists of."""
DEFAULT_PARTS = [part for part in PARTS if part not in NAMED_ONLY]
SWEEPS = {'classes': 'num_classes', 'image-size': 'image_size'}
"""What can be varied, and the field of the setting that holds it."""
SWEEP_PARTS = {'classes': ('inference', 'text'), 'image-size': ('inference',)}
"""Parts that are varied unless others are asked for."""
RECOMPUTED = {
    'off': (False, False),
    'head, selective': (False, 'selective'),
    'head': (False, True),
    'all, selective': ('selective', 'selective'),
    'all': (True, True),
}
"""In the table of memory: ``with_cp`` of backbone and head."""
ALLOCATORS: dict[str, dict[str, str]] = {
    'default': {},
    'kept': {
        'MALLOC_MMAP_THRESHOLD_': str(1 << 40),
        'MALLOC_TRIM_THRESHOLD_': str(1 << 40),
        'MALLOC_TOP_PAD_': str(256 << 20),
    },
}
"""glibc's variables. 'kept': no block is mapped apart and no freed memory is given back."""
MEASURED = 'measured'


@dataclass(frozen=True)
class Measurement:
    """One part of one side: what is asked for, and once it has been made, what it gave.

    Attributes:
        side: Label of the side, whose tree is `tree`.
        allocator: Key of ALLOCATORS.
        point: What is varied, by name, such as {'classes': 100}; the last may grow too large.
        status: 'planned', 'measured', 'skipped' or 'failed'; `reason` says why.
        seconds: Seconds of every call, by section.
        memory: Bytes; see ``peak_memory`` in measure.py.
        info: Further values, such as `images` of a call and the `threads` that ran.
    """

    side: str
    tree: str
    allocator: str
    setting: Setting
    point: Mapping[str, Any] = field(default_factory=dict)
    status: str = 'planned'
    reason: str = ''
    seconds: Mapping[str, Sequence[float]] = field(default_factory=dict)
    memory: Mapping[str, int] = field(default_factory=dict)
    info: Mapping[str, Any] = field(default_factory=dict)

    @property
    def part(self) -> str:
        """Key of a subject."""
        return self.setting.part

    @property
    def place(self) -> str:
        """Side and allocator, for messages."""
        return f'{self.side}, {self.allocator} allocator'

    @property
    def label(self) -> str:
        """For messages."""
        return ', '.join([self.part, *(f'{k} {v}' for k, v in self.point.items()), self.place])

    @property
    def peak(self) -> int:
        """Peak bytes: of the GPU where it ran on one, else of the process."""
        return self.memory.get('peak_cuda') or self.memory.get('peak_rss', 0)

    @property
    def start(self) -> int:
        """Bytes in use before the first call, read in the same place as the peak."""
        return self.memory.get('start_cuda' if 'peak_cuda' in self.memory else 'start_rss', 0)


def plan(
    sides: Sequence[Side],
    base: Setting,
    parts: Sequence[str] = (),
    sweeps: Mapping[str, Sequence[int]] | None = None,
    allocators: Sequence[str] = ('default',),
    rounds: int = 1,
    memory_batches: Sequence[int] = (),
) -> list[Measurement]:
    """The measurements in their order: part by part, and in each part side by side.

    With two sides A and B and two rounds each part goes A B A B. With ``sweeps``, values by key of
    SWEEPS, the parts are measured at each of these values only.
    """
    groups: list[tuple[Sequence[str], Mapping[str, Any], Mapping[str, Any]]] = []
    for name, values in (sweeps or {}).items():
        for part in parts or SWEEP_PARTS[name]:
            groups += [(PARTS[part][:1], {name: v}, {SWEEPS[name]: v}) for v in values]
    if not sweeps:
        groups += [(PARTS[part], {}, {}) for part in parts if part != 'memory']
        groups += _memory_cells(base, memory_batches) if 'memory' in parts else []
    return [
        Measurement(
            side.label,
            side.tree,
            allocator,
            replace(base, part=subject, config=side.config, **SUBJECTS[subject].calls, **changes),
            point,
        )
        for subjects, point, changes in groups
        for _ in range(1 if subjects == PARTS['memory'] else rounds)
        for subject in subjects
        for allocator in allocators
        for side in sides
    ]


def _memory_cells(base: Setting, batches: Sequence[int]) -> list[tuple]:
    """By precision, where activations are computed again in the backward pass, and batch."""
    cells = []
    for dtype, recomputed, batch in product(DTYPES, RECOMPUTED, sorted(batches)):
        keys = ('model.backbone.with_cp', 'model.decode_head.with_cp')
        options = {**base.cfg_options, **dict(zip(keys, RECOMPUTED[recomputed]))}
        point = dict(precision=dtype, recomputed=recomputed, batch=batch)
        changes = dict(dtype=dtype, cfg_options=options, batch_size=batch)
        cells.append((PARTS['memory'], point, changes))
    return cells


def run_all(
    planned: Sequence[Measurement], log: Path, start: Callable[[Measurement], None]
) -> Iterator[Measurement]:
    """Make measurements one after the other.

    ``start`` is told of each before it is made. Once one has not fitted into memory, those that
    differ from it by a larger last value of ``point`` only are skipped.

    Raises:
        TimingError: A config can't be used.
    """
    too_large: dict[tuple, int] = {}
    for one in planned:
        start(one)
        *fixed, value = one.point.values() or [0]
        key = (one.side, one.allocator, one.part, *one.point, *fixed)
        if value >= too_large.get(key, sys.maxsize):
            one = replace(one, status='skipped', reason=f'{too_large[key]} did not fit in memory')
        else:
            one = run(one, log)
            if one.point and 'fit in memory' in one.reason:
                too_large[key] = value
        yield one


def run(one: Measurement, log: Path) -> Measurement:
    """Make one measurement in a fresh process.

    Raises:
        TimingError: The config can't be used.
    """
    room = Path(__file__).resolve().parents[1]
    with tempfile.TemporaryDirectory(prefix='timing-') as folder:
        result = Path(folder, 'result.json')
        words = [one.tree, str(room), json.dumps(asdict(one.setting)), str(result)]
        try:
            run_program([sys.executable, '-c', START, *words], log, environment(one))
        except ProgramError as error:
            if out_of_memory(error):  # by the last lines of the log: in C++, or while importing
                reason = f'does not fit in memory: {error}'
                return replace(one, status='skipped', reason=reason)
            return replace(one, status='failed', reason=str(error))
        content = json.loads(result.read_text(encoding='utf-8'))
    if content['status'] == 'error':
        raise TimingError(f'{one.label}: {content["reason"]}')
    return replace(one, **content)


def environment(one: Measurement) -> dict[str, str]:
    """Environment of the measuring process: tree, allocator and threads as asked for."""
    env = program_environment(Path(one.tree))
    env = {name: value for name, value in env.items() if not name.startswith('MALLOC_')}
    if one.setting.threads is not None:
        env.update(dict.fromkeys(('OMP_NUM_THREADS', 'MKL_NUM_THREADS'), str(one.setting.threads)))
    return env | ALLOCATORS[one.allocator]
