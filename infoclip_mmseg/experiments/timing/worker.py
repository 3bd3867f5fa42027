"""One measurement in a process of its own.

Started as a file (``worker.py SETTING RESULT``), so that it can measure the infoclip_mmseg of
another tree with the timing package that it belongs to.
"""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

HERE = Path(__file__).resolve().parent
PACKAGE = 'infoclip_mmseg'


def use_tree(tree: str) -> ModuleType:
    """Import infoclip_mmseg from a tree, with this timing package in it.

    Raises:
        RuntimeError: Another infoclip_mmseg came first.
    """
    sys.path.insert(0, tree)
    package = importlib.import_module(PACKAGE)
    found = Path(str(package.__file__)).resolve().parents[1]
    if found != Path(tree).resolve():
        raise RuntimeError(f'{PACKAGE} was imported from {found}, but {tree} is to be measured')
    name = f'{PACKAGE}.experiments.{HERE.name}'
    spec = importlib.util.spec_from_file_location(
        name, HERE / '__init__.py', submodule_search_locations=[str(HERE)]
    )
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def measure(content: dict[str, Any]) -> dict[str, Any]:
    """Measure one part.

    Args:
        content: Fields of a :class:`~infoclip_mmseg.experiments.timing.settings.Setting`.

    Returns:
        `status` ('measured', 'skipped' or 'error'), `reason`, `seconds` by section, `memory` in
        bytes, `info`.
    """
    import torch

    from infoclip_mmseg.experiments.timing.measure import Clock, PeakMemory, limit_memory, repeat
    from infoclip_mmseg.experiments.timing.settings import BenchmarkError, Setting, SkippedError
    from infoclip_mmseg.experiments.timing.subjects import SUBJECTS

    setting = Setting(**content)
    if setting.threads is not None:
        torch.set_num_threads(setting.threads)
    if setting.max_memory is not None and setting.device == 'cpu':
        limit_memory(setting.max_memory)
    clock = Clock(setting.device)
    try:
        task = SUBJECTS[setting.part](setting, clock)
        memory = PeakMemory(setting.device)
        repeat(task.call, clock, setting.warmup, setting.repeats)
    except SkippedError as error:
        return dict(status='skipped', reason=str(error))
    except BenchmarkError as error:
        return dict(status='error', reason=str(error))
    except (MemoryError, RuntimeError) as error:
        if not out_of_memory(error):
            raise
        return dict(status='skipped', reason=f'does not fit in memory: {error!s:.200}')
    info = dict(task.info, images=task.images, threads=torch.get_num_threads())
    return dict(status='measured', seconds=clock.seconds, memory=memory.read(), info=info)


def out_of_memory(error: BaseException) -> bool:
    """Whether an error says that an allocation failed, on a CPU or a GPU."""
    said = str(error).lower()
    signs = ('out of memory', "can't allocate memory", 'not enough memory', 'bad_alloc')
    return isinstance(error, MemoryError) or any(sign in said for sign in signs)


def main(setting_file: str, result_file: str) -> None:
    """Read a setting, measure, write the result."""
    content = json.loads(Path(setting_file).read_text(encoding='utf-8'))
    use_tree(content['tree'])
    Path(result_file).write_text(json.dumps(measure(content)), encoding='utf-8')


if __name__ == '__main__':
    sys.path.pop(0)  # the folder of this file, whose modules are no top-level ones
    main(*sys.argv[1:])
