"""Fully sharded training (FSDP) for MMEngine's FlexibleRunner.

The trained parameters, their gradients and the optimizer's state are spread over the ranks. What
does not train stays whole on every rank: the frozen teacher needs those very tensors, and shares
them. Checkpoints are those of one process, whatever the number of ranks that wrote or read them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from mmengine._strategy import DDPStrategy
from mmengine.device import get_device
from mmengine.dist import get_world_size, is_main_process
from mmengine.optim import AmpOptimWrapper, BaseOptimWrapper
from mmengine.registry import STRATEGIES
from mmengine.utils import apply_to, digit_version
from torch import Tensor, nn

from infoclip_mmseg.engine.optim import is_sharded, whole


def shard_units(model: nn.Module) -> Iterator[nn.Module]:
    """The modules that are gathered one at a time: transformer blocks of CLIP that train.

    The last block of a tower is gathered with the rest of the model: of it the dense modes and the
    text tower run parts, and what is gathered one at a time must run as a whole.
    """
    for name, module in model.named_modules():
        if not name.endswith(('transformer.resblocks', 'trunk.blocks')):
            continue
        *body, _ = module.children()
        for block in body:
            if any(parameter.requires_grad for parameter in block.parameters()):
                yield block


def shard_model(model: nn.Module, shard_size: int | None = None) -> None:
    """Spread the parameters that train over the ranks, in place.

    The model is on its final device, with the same weights on every rank. ``shard_size`` ranks, a
    divisor of their number, hold one copy of the parameters between them; None takes all.
    """
    if getattr(model, 'distillation', None) is not None:
        raise ValueError(
            f'{type(model).__name__} keeps its distillation out of the state dict and cannot be '
            'sharded: train it with DDP (no runner_type and strategy in the config)'
        )
    if digit_version(torch.__version__) < digit_version('2.7.0'):  # no ignored_params
        raise RuntimeError(
            f'fully sharded training needs PyTorch 2.7 or newer, this is {torch.__version__}; '
            'upgrade it, or train with DDP (no runner_type and strategy in the config)'
        )
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    ranks = get_world_size()
    size = shard_size or ranks
    if size < 1 or ranks % size:
        raise ValueError(
            f'strategy.shard_size={shard_size} must divide the number of ranks, which is {ranks}'
        )
    shape = (ranks,) if size == ranks else (ranks // size, size)
    names = ('replicate', 'shard')[-len(shape) :]
    mesh = init_device_mesh(get_device(), shape, mesh_dim_names=names)
    frozen = {parameter for parameter in model.parameters() if not parameter.requires_grad}
    for module in (*shard_units(model), model):
        fully_shard(module, mesh=mesh, ignored_params=frozen)


def gather_state(state: Any) -> Any:
    """Whole tensors on the CPU in place of sharded ones, in nested dicts and lists.

    Every rank must call it; all but the main process get None for each tensor.
    """

    def gather(tensor: Tensor) -> Tensor | None:
        gathered = whole(tensor)
        return gathered.detach().cpu() if is_main_process() else None

    return apply_to(state, torch.is_tensor, gather)


def shard_like(value: Any, parameter: Any) -> Any:
    """This rank's part of a whole tensor where the parameter is sharded, else the value as it is.

    The tensor is the same on every rank, on any device. What has not the parameter's shape stays,
    as the number of steps in an optimizer's state.
    """
    if not is_sharded(parameter) or getattr(value, 'shape', None) != parameter.shape:
        return value
    from torch.distributed.tensor import distribute_tensor

    value = value.to(parameter.device)
    # Every rank has read the file, so that nothing need be sent.
    return distribute_tensor(value, parameter.device_mesh, parameter.placements, src_data_rank=None)


@STRATEGIES.register_module()
class FullyShardedStrategy(DDPStrategy):
    """Strategy of MMEngine's FlexibleRunner by PyTorch's ``fully_shard`` (FSDP2).

    MMEngine's own FSDPStrategy wraps the model in the older FullyShardedDataParallel, which renames
    parameters, needs an accelerator and makes the optimizer state of another form. Here parameters
    keep their names, and a checkpoint can be resumed and tested with or without sharding.

    Args:
        shard_size: See :func:`shard_model`. On several machines with slow links between them, the
            number of GPUs in each.
        **kwargs: See ``mmengine._strategy.DDPStrategy``.
    """

    def __init__(self, *, shard_size: int | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if not self.distributed:
            raise ValueError(
                'fully sharded training runs in processes that a launcher starts: '
                'tools/dist_train.sh CONFIG GPUS, also for one GPU, or tools/slurm_train.sh'
            )
        self.shard_size = shard_size
        self._trains = False

    def prepare(self, model: nn.Module | dict, **kwargs: Any) -> tuple:
        """Build, shard and, where an optimizer is asked for, make ready to train."""
        self._trains = kwargs.get('optim_wrapper') is not None
        return super().prepare(model, **kwargs)

    def build_optim_wrapper(
        self, optim_wrapper: Any, model: nn.Module | None = None
    ) -> BaseOptimWrapper:
        """As in MMEngine; a ValueError for a wrapper that scales the loss."""
        wrapper = super().build_optim_wrapper(optim_wrapper, model)
        if isinstance(wrapper, AmpOptimWrapper):  # each rank would look at its own gradients only
            raise ValueError(
                'fully sharded training has no loss scaling: use bfloat16 (--amp --amp-dtype bf16, '
                "or optim_wrapper.type='BFloat16OptimWrapper') in place of AmpOptimWrapper"
            )
        return wrapper

    def _wrap_model(self, model: nn.Module) -> nn.Module:
        model = self.convert_model(model.to(get_device()))
        distiller = getattr(model, 'distiller', None)
        if self._trains and distiller is not None and distiller.needs_teacher:
            distiller.attach_teacher()  # from the whole weights, which are about to be split
        shard_model(model, self.shard_size)
        return model

    def load_model_state_dict(self, state_dict: dict[str, Tensor], **kwargs: Any) -> None:
        """Load whole weights."""
        targets = self.model.state_dict()
        parts = {key: shard_like(value, targets.get(key)) for key, value in state_dict.items()}
        super().load_model_state_dict(parts, **kwargs)

    def load_optim_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load a whole optimizer state, of one process or of any number of ranks."""
        groups = self.optim_wrapper.param_groups
        parameters = [parameter for group in groups for parameter in group['params']]
        parts = {
            index: {key: shard_like(value, parameters[index]) for key, value in entries.items()}
            for index, entries in state_dict['state'].items()
        }
        super().load_optim_state_dict({**state_dict, 'state': parts})

    def resume(self, filename: str, **kwargs: Any) -> dict:
        """As in MMEngine, but the whole state is read to the CPU and not to every card."""
        return super().resume(filename, **{**kwargs, 'map_location': 'cpu'})

    def save_checkpoint(
        self,
        filename: str,
        *,
        save_optimizer: bool = True,
        callback: Callable[[dict], None] | None = None,
        **kwargs: Any,
    ) -> None:
        """Gather the state, for which every rank is needed, and write it on the main process.

        The optimizer's state has the form of one process: parameters by number, and none for what
        never got a gradient. PyTorch's ``get_optimizer_state_dict`` has another form.
        """
        gathered = dict(state_dict=gather_state(dict(self.model.state_dict())))
        if save_optimizer and hasattr(self, 'optim_wrapper'):
            gathered['optimizer'] = gather_state(self.optim_wrapper.state_dict())

        def fill(checkpoint: dict) -> None:
            checkpoint.update(gathered)
            if callback is not None:
                callback(checkpoint)

        super().save_checkpoint(filename, save_optimizer=False, callback=fill, **kwargs)
