"""What tools/train.py and tools/test.py share: command line, start, the model in its wrappers."""

from __future__ import annotations

import argparse
import ctypes
import logging
import os
import subprocess
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.device import get_device, is_cuda_available
from mmengine.logging import print_log
from torch import distributed, nn

from infoclip_mmseg.engine.cfg_options import CfgOptions
from infoclip_mmseg.utils.resources import find_config

# mallopt(3): M_MMAP_THRESHOLD, M_TRIM_THRESHOLD and M_TOP_PAD, in bytes.
_MALLOC = {-3: 1 << 30, -1: 1 << 30, -2: 1 << 28}

LAUNCHERS = ('none', 'pytorch', 'slurm', 'mpi')
DTYPES = ('auto', 'fp16', 'bf16')


def add_common_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options that mmseg's train.py and test.py have in common."""
    parser.add_argument('config', help='config file')
    parser.add_argument('--work-dir', help='folder for logs, checkpoints and metrics')
    parser.add_argument('--amp', action='store_true', help='use mixed precision')
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=CfgOptions,
        metavar='KEY=VALUE',
        help='override keys of the config, e.g. train_dataloader.batch_size=2 '
        "key=a,b or 'key=[(a,b),(c,d)]'; quote what has spaces: 'key=two words'",
    )
    parser.add_argument('--launcher', choices=LAUNCHERS, default='none', help='job launcher')
    parser.add_argument('--local_rank', '--local-rank', type=int, default=0)


def load_config(args: argparse.Namespace) -> Config:
    """Read the config of a run and put the options of :func:`add_common_arguments` into it.

    The working folder is `--work-dir`, else the config's `work_dir`, else
    ./work_dirs/<name of the config file>.
    """
    args.config = str(find_config(args.config))
    os.environ.setdefault('LOCAL_RANK', str(args.local_rank))
    cfg = Config.fromfile(args.config)
    cfg.launcher = args.launcher
    if args.cfg_options is not None:
        cfg.merge_from_dict(args.cfg_options)
    if args.work_dir is not None:
        cfg.work_dir = args.work_dir
    elif cfg.get('work_dir') is None:
        cfg.work_dir = str(Path('work_dirs', Path(args.config).stem))
    return cfg


def enable_amp(cfg: Config, dtype: str = 'auto') -> None:
    """Switch the `optim_wrapper` of a config to mixed precision, in place.

    With 'auto' that is float16 on CUDA, bfloat16 on a CPU and with a `strategy`.
    """
    if dtype not in DTYPES:
        raise ValueError(f'dtype must be one of {DTYPES}, got {dtype!r}')
    sharded = cfg.get('strategy') is not None
    if dtype == 'auto':
        dtype = 'fp16' if is_cuda_available() and not sharded else 'bf16'
    if dtype == 'fp16' and sharded:
        raise ValueError('fp16 scales the loss, which sharded training does not support; use bf16')
    if dtype == 'fp16' and not is_cuda_available():
        raise ValueError('fp16 needs a CUDA device and there is none; use bf16 or auto')
    wrapper = cfg.optim_wrapper
    if wrapper.type in ('AmpOptimWrapper', 'BFloat16OptimWrapper'):
        text = f'the config already sets optim_wrapper.type={wrapper.type!r}; it is left as it is'
        print_log(text, 'current', logging.WARNING)
    elif wrapper.type != 'OptimWrapper':
        raise ValueError(
            f"mixed precision needs optim_wrapper.type='OptimWrapper', got {wrapper.type!r}"
        )
    elif dtype == 'bf16':
        wrapper.type = 'BFloat16OptimWrapper'
    else:
        wrapper.update(type='AmpOptimWrapper', loss_scale='dynamic', dtype='float16')


def start_on_cpu(cfg: Config) -> None:
    """Join the processes of a launch by torchrun or Slurm over gloo where there is no accelerator.

    MMEngine's own start asks for a CUDA device. With one, this does nothing.
    `env_cfg.dist_cfg.timeout` (seconds) is heeded; the config gets a `model_wrapper_cfg` without
    device numbers.
    """
    if cfg.launcher not in ('pytorch', 'slurm') or get_device() != 'cpu':
        return
    if cfg.launcher == 'slurm':
        _read_slurm_variables()
    timeout = cfg.get('env_cfg', {}).get('dist_cfg', {}).get('timeout')
    # PyTorch 2.1 takes no timeout=None.
    options: dict[str, Any] = {} if timeout is None else dict(timeout=timedelta(seconds=timeout))
    distributed.init_process_group('gloo', **options)
    wrapper = dict(type='MMDistributedDataParallel', device_ids=None, broadcast_buffers=False)
    unused = cfg.get('find_unused_parameters', False)
    cfg.setdefault('model_wrapper_cfg', {**wrapper, 'find_unused_parameters': unused})


def leave_together() -> None:
    """End the processes of a launch at the same time, so that none is missed by another."""
    if distributed.is_available() and distributed.is_initialized():
        distributed.barrier()
        distributed.destroy_process_group()


def _read_slurm_variables() -> None:
    """Set what torchrun would set, as MMEngine does where there is a CUDA device."""
    env = os.environ
    env['RANK'], env['WORLD_SIZE'] = env['SLURM_PROCID'], env['SLURM_NTASKS']
    env['LOCAL_RANK'] = env['SLURM_LOCALID']
    env.setdefault('MASTER_PORT', '29500')
    if 'MASTER_ADDR' not in env:
        command = ['scontrol', 'show', 'hostnames', env['SLURM_NODELIST']]
        hosts = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        env['MASTER_ADDR'] = hosts.split()[0]


def check_file(path: str, what: str) -> None:
    """Raise a FileNotFoundError, which says ``what`` it is, where a local file is not there."""
    if not Path(path).expanduser().is_file():
        raise FileNotFoundError(
            f'{what} {path!r} does not exist or is not a file (working directory {Path.cwd()})'
        )


def keep_freed_memory() -> None:
    """Tell glibc to keep memory that is freed instead of giving it back to the system.

    On a CPU each training step frees and asks for the same large blocks; mapping them anew costs
    more than the arithmetic on them. Does nothing where the C library is another one, or where the
    user has set one of its ``MALLOC_`` variables.
    """
    if sys.platform != 'linux' or any(name.startswith('MALLOC_') for name in os.environ):
        return
    mallopt = getattr(ctypes.CDLL(None), 'mallopt', None)
    if mallopt is not None:
        for parameter, value in _MALLOC.items():
            mallopt(parameter, value)


def unwrap_segmentor(model: nn.Module, attribute: str) -> Any:
    """The first module with ``attribute`` within wrappers of distributed runs or of TTA."""
    inner: Any = model
    while not hasattr(inner, attribute):
        if not hasattr(inner, 'module'):
            raise TypeError(
                f'{type(inner).__name__} has no {attribute!r}: this hook works on an '
                'OpenVocabSegmentor or a DistilledSegmentor; set model.type or remove the hook'
            )
        inner = inner.module
    return inner
