"""Runs programs of tools/ with several ranks each: ``python rank_worker.py JOBS.json``.

The file holds a list of [ranks, launcher, port, program, arguments]. The ranks are forked, so that
PyTorch and MMSegmentation are imported once for all of them. Losses and gradient norms of each
iteration, averaged over ranks, go to losses.json in the working folder.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import json
import os
import sys
import traceback
from pathlib import Path

import torch
from mmengine.config import Config
from mmengine.dist import all_reduce, is_main_process
from mmengine.hooks import Hook
from mmseg.registry import HOOKS

ROOT = Path(__file__).resolve().parents[2]
# Imported once here, and not by every rank.
IMPORTS = ('matplotlib.pyplot', 'torch.distributed.tensor', 'torch.distributed.fsdp')
# The layout of the config in logs and checkpoints takes most of the time of such a short run.
Config.pretty_text = property(lambda cfg: repr(cfg._cfg_dict))


@HOOKS.register_module()
class LossRecorder(Hook):
    """Averages what a training step logs over the ranks."""

    def __init__(self) -> None:
        self.steps: list[dict[str, float]] = []

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        names = sorted(name for name in outputs if 'loss' in name)
        values = torch.tensor([float(outputs[name]) for name in names], dtype=torch.float64)
        all_reduce(values, op='mean')
        step = dict(zip(names, values.tolist()))
        for name, buffer in runner.message_hub.log_scalars.items():
            if 'grad_norm' in name:
                step[name] = buffer.current()
        self.steps.append(step)

    def after_train(self, runner):
        if is_main_process():
            Path(runner.work_dir, 'losses.json').write_text(json.dumps(self.steps))


def run_rank(program: str, arguments: list[str]) -> int:
    """Status of one rank."""
    path = ROOT / 'tools' / f'{program}.py'
    spec = importlib.util.spec_from_file_location(f'tool_{program}', path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    try:
        module.main(arguments)
    except SystemExit as stopped:
        return stopped.code or 0
    except Exception:
        traceback.print_exc()
        return 1
    return 0


def launch_variables(launcher: str, rank: int, ranks: int, port: int) -> dict[str, str]:
    """What a launcher tells a rank; Slurm leaves the first host to scontrol."""
    numbers = (str(rank), str(rank), str(ranks))
    if launcher == 'slurm':
        names = ('SLURM_PROCID', 'SLURM_LOCALID', 'SLURM_NTASKS')
        return dict(zip(names, numbers), SLURM_NODELIST='n[1-2]', MASTER_PORT=str(port))
    address = dict(MASTER_ADDR='127.0.0.1', MASTER_PORT=str(port))
    return dict(zip(('RANK', 'LOCAL_RANK', 'WORLD_SIZE'), numbers), **address)


def run_job(ranks: int, launcher: str, port: int, program: str, arguments: list[str]) -> bool:
    """Whether all ranks of a job ended well."""
    pids = []
    for rank in range(ranks):
        pid = os.fork()
        if pid == 0:
            os.environ.update(launch_variables(launcher, rank, ranks, port))
            status = run_rank(program, [*arguments, '--launcher', launcher])
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(status)
        pids.append(pid)
    statuses = [os.waitpid(pid, 0)[1] for pid in pids]  # of all, whatever the first ones say
    return not any(statuses)


if __name__ == '__main__':
    sys.path.insert(0, str(ROOT))
    for name in ('infoclip_mmseg', *IMPORTS):
        with contextlib.suppress(ImportError):  # the last ones differ by version
            importlib.import_module(name)
    for job in json.loads(Path(sys.argv[1]).read_text()):
        if not run_job(*job):
            sys.exit(f'failed: {job}')
