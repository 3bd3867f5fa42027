"""One measurement in a process of its own; see ``START`` in runs.py for how it is started."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import Any

import torch

from .bench import Bench, Setting, SkippedError, TimingError
from .measure import limit_memory, out_of_memory, peak_memory
from .subjects import SUBJECTS


def measure(setting: Setting) -> dict[str, Any]:
    """Measure one part.

    Returns:
        `status` ('measured', 'skipped' or 'error') and `reason`, or `seconds` by section, `memory`
        in bytes and `info`.
    """
    if setting.threads is not None:
        torch.set_num_threads(setting.threads)
    if setting.max_memory is not None and setting.device == 'cpu':
        limit_memory(setting.max_memory)
    try:
        bench = Bench(setting)
        call = SUBJECTS[setting.part].make(bench)
        with peak_memory(setting.device) as memory:
            bench.clock.repeat(call, setting.warmup, setting.repeats)
    except SkippedError as error:
        return dict(status='skipped', reason=str(error))
    except TimingError as error:
        return dict(status='error', reason=str(error))
    except (MemoryError, RuntimeError) as error:
        if not out_of_memory(error):
            raise
        return dict(status='skipped', reason=f'does not fit in memory: {error!s:.200}')
    info = dict(bench.info, images=bench.images, threads=torch.get_num_threads())
    return dict(status='measured', seconds=bench.clock.seconds, memory=memory, info=info)


def main(tree: str, setting: str, result_file: str) -> None:
    """Measure what a setting in JSON asks for, and write the result.

    Raises:
        RuntimeError: infoclip_mmseg is not that of the tree.
    """
    package = importlib.import_module('infoclip_mmseg')
    origin = Path(str(package.__file__)).resolve().parents[1]
    if origin != Path(tree).resolve():
        raise RuntimeError(f'infoclip_mmseg is of {origin}, but that of {tree} is to be measured')
    result = measure(Setting(**json.loads(setting)))
    Path(result_file).write_text(json.dumps(result), encoding='utf-8')
