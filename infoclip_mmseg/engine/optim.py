"""Optimizer construction with gradient norms logged, and clipped, by group; bfloat16."""

from __future__ import annotations

import logging
import math
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, cast

import torch
from mmengine.logging import MessageHub, MMLogger, print_log
from mmengine.model import is_model_wrapper
from mmengine.optim import DefaultOptimWrapperConstructor, OptimWrapper
from mmengine.runner import autocast
from mmseg.registry import OPTIM_WRAPPER_CONSTRUCTORS, OPTIM_WRAPPERS
from torch import Tensor, nn

from infoclip_mmseg.utils.tensors import at_least_float32

GROUPS = {'clip': 'backbone', 'head': 'decode_head', 'lpam': 'neck'}
"""Group name to parameter-name prefix; what no prefix covers is the group 'other'."""
SCOPES = ('all', 'group')
Scope = str | Sequence[Sequence[str]]
NORM_LAYERS = (nn.LayerNorm, nn.GroupNorm, nn.modules.batchnorm._NormBase)


def group_of(name: str, groups: Mapping[str, str]) -> str:
    """Return the group whose prefix covers a parameter name: the longest one, else 'other'."""
    hits = [g for g, prefix in groups.items() if f'{name}.'.startswith(f'{prefix}.')]
    return max(hits, key=lambda g: len(groups[g])) if hits else 'other'


def check_scope(scope: Scope, groups: Iterable[str]) -> dict[str, Collection[str]]:
    """For each group that a scope (see :class:`GroupedClip`) names, those that share its norm."""
    lists: Sequence[Collection[str]] = () if isinstance(scope, str) else scope
    if scope == 'all':
        lists = [{*groups, 'other'}]
    elif isinstance(scope, str) and scope != 'group':
        raise ValueError(
            f'clip_grad.scope must be one of {SCOPES}, or lists of groups that share a norm '
            f"like [['clip', 'head'], ['lpam']], got {scope!r}"
        )
    if any(isinstance(names, str) for names in lists):
        raise ValueError(
            f'clip_grad.scope must be a list of lists of group names, got {scope!r}; write '
            "[['clip', 'head'], ['lpam']] for one norm over CLIP and head"
        )
    joint = {name: names for names in lists for name in names}
    if len(joint) < sum(map(len, lists)):
        raise ValueError(f'clip_grad.scope names a group twice: {scope!r}')
    return joint


def gradient_norm(gradients: Iterable[Tensor], norm_type: float = 2.0) -> Tensor:
    """Norm of several gradients, one or more, taken as one vector; `inf`: the largest magnitude.

    They may lie on several devices. Of sharded ones the norm is over all parts, so that every rank
    must call this. A scalar tensor in float32 or wider, on the first gradient's device.
    """
    tensors = [at_least_float32(gradient) for gradient in gradients]
    if math.isinf(norm_type):  # PyTorch has none of the empty part that a rank may hold
        tensors = [whole(tensor).abs().amax() for tensor in tensors]
    if hasattr(nn.utils, 'get_total_norm'):  # torch >= 2.6
        return whole(nn.utils.get_total_norm(tensors, norm_type))
    norms = [torch.linalg.vector_norm(tensor, norm_type) for tensor in tensors]
    return torch.linalg.vector_norm(torch.stack([n.to(norms[0].device) for n in norms]), norm_type)


def is_sharded(tensor: Tensor) -> bool:
    """Whether the tensor is one of PyTorch's DTensors, spread over ranks by FSDP."""
    return hasattr(tensor, 'placements')


def whole(tensor: Tensor) -> Tensor:
    """A sharded tensor as a whole, for which every rank must call this; others as they are."""
    return cast(Any, tensor).full_tensor() if is_sharded(tensor) else tensor


class GroupedClip:
    """Clips gradients by norm and publishes the norm of every group.

    Stands in for `torch.nn.utils.clip_grad_norm_` in an OptimWrapper, which calls it just before
    the optimizer's step: after accumulation, and with gradients already unscaled under AMP.
    The norms before clipping go to MMEngine's MessageHub as `train/grad_norm_<group>`.

    Args:
        groups: Group name to its parameters, which are told apart by identity.
        scope: 'all' scales every gradient by one factor from the norm over all of them, as CAT-Seg
            does; 'group' clips each group by its own norm. A sequence of sequences of group names
            clips the groups of each by one norm, and each group that it does not name by its own.
    """

    def __init__(self, groups: Mapping[str, Iterable[nn.Parameter]], scope: Scope = 'all') -> None:
        self._joint = check_scope(scope, groups)
        self._group_by_id = {id(p): name for name, params in groups.items() for p in params}

    @torch.no_grad()
    def __call__(self, params: Iterable[Tensor], max_norm: float, norm_type: float = 2.0) -> Tensor:
        """Clip the gradients, one or more, in place to ``max_norm``; `inf` clips nothing.

        Returns the norm over all of them before clipping, a scalar tensor.
        """
        gradients: dict[str, list[Tensor]] = {}
        for param in params:
            if param.grad is not None:
                name = self._group_by_id.get(id(param), 'other')
                gradients.setdefault(name, []).append(param.grad)
        norms = {name: gradient_norm(grads, norm_type) for name, grads in gradients.items()}
        total = gradient_norm(norms.values(), norm_type)
        values = torch.stack([norm.to(total.device) for norm in norms.values()]).tolist()
        hub = MessageHub.get_current_instance()
        for name, value in zip(norms, values):
            hub.update_scalar(f'train/grad_norm_{name}', value)
        if math.isinf(max_norm):
            return total
        for name, grads in gradients.items():
            partners = self._joint.get(name, (name,))
            norm = gradient_norm([norms[other] for other in norms if other in partners], norm_type)
            factor = (max_norm / (norm + 1e-6)).clamp(max=1.0)
            for gradient in grads:
                part = cast(Any, gradient).to_local() if is_sharded(gradient) else gradient
                part.mul_(factor.to(gradient.device))
        return total


@OPTIM_WRAPPER_CONSTRUCTORS.register_module()
class GroupedOptimWrapperConstructor(DefaultOptimWrapperConstructor):
    """MMEngine's default constructor with three differences.

    1. Gradient norms are logged apart for each group of parameters, and `clip_grad.scope` says
       whether the clip acts on one norm over everything, on each group's, or on one over the
       groups that are listed together. Without `clip_grad` the norms are logged and nothing is
       clipped.
    2. The optimizer holds exactly the parameters that train, and those with equal options share
       one parameter group, so that the step runs as few fused kernels. A checkpoint's optimizer
       state therefore fits only a run with the same trainable parameters and options.
    3. `norm_decay_mult` also acts on normalisation layers which a custom key covers, unless that
       key sets `decay_mult`. MMEngine skips them.

    Args:
        optim_wrapper_cfg: As in MMEngine. `clip_grad` may hold `max_norm`, `norm_type` and `scope`
            ('all', 'group', or lists of groups, see :class:`GroupedClip`).
        paramwise_cfg: As in MMEngine, plus `groups`: group name to parameter-name prefix.
    """

    def __init__(
        self, optim_wrapper_cfg: dict[str, Any], paramwise_cfg: dict[str, Any] | None = None
    ) -> None:
        paramwise_cfg = {'groups': GROUPS, **(paramwise_cfg or {})}
        super().__init__(optim_wrapper_cfg, paramwise_cfg)
        self.clip_grad = dict(self.optim_wrapper_cfg.get('clip_grad') or {'max_norm': math.inf})
        self.scope = self.clip_grad.pop('scope', 'all')
        if self.clip_grad.get('type', 'norm') != 'norm' or 'max_norm' not in self.clip_grad:
            raise ValueError(
                f'clip_grad={self.optim_wrapper_cfg["clip_grad"]} is not a clip by norm; expected '
                "dict(max_norm=0.01, norm_type=2, scope='all')"
            )

    def __call__(self, model: nn.Module) -> OptimWrapper:
        """Build the optimizer wrapper of a model, wrapped for distributed training or not."""
        model = cast(nn.Module, model.module) if is_model_wrapper(model) else model
        self.optim_wrapper_cfg['clip_grad'] = dict(self.clip_grad)
        with _quiet():
            wrapper = super().__call__(model)
        # Built from a config they are ConfigDicts, which dynamo of torch 2.4 does not know.
        wrapper.optimizer.param_groups[:] = map(dict, wrapper.optimizer.param_groups)
        groups: dict[str, list[nn.Parameter]] = {}
        for name, param in model.named_parameters():
            if param.requires_grad:
                group = group_of(name, self.paramwise_cfg['groups'])
                groups.setdefault(group, []).append(param)
        wrapper.clip_func = GroupedClip(groups, self.scope)
        for name, params in groups.items():
            count = sum(p.numel() for p in params)
            print_log(f'trained, {name}: {len(params)} tensors, {count:,} parameters', 'current')
        for options in wrapper.optimizer.param_groups:
            rates = f'lr={options["lr"]} weight_decay={options.get("weight_decay")}'
            print_log(f'optimizer group: {len(options["params"])} tensors with {rates}', 'current')
        return wrapper

    def add_params(
        self, params: list[dict[str, Any]], module: nn.Module, prefix: str = '', **kwargs: Any
    ) -> None:
        """Collect the parameter groups of a module; see MMEngine's class for the rules."""
        super().add_params(params, module, prefix=prefix, **kwargs)
        if prefix:
            return
        if self.paramwise_cfg.get('norm_decay_mult') is not None:
            self._drop_norm_decay(params, module)
        merged: dict[tuple[Any, ...], dict[str, Any]] = {}
        for group in params:
            options = {k: v for k, v in group.items() if k != 'params'}
            key = tuple(sorted((k, repr(v)) for k, v in options.items()))
            merged.setdefault(key, {'params': [], **options})['params'].extend(group['params'])
        if not merged:
            raise ValueError('no parameter of the model requires a gradient: nothing to train')
        params[:] = merged.values()

    def _drop_norm_decay(self, params: list[dict[str, Any]], model: nn.Module) -> None:
        layers = (m for m in model.modules() if isinstance(m, NORM_LAYERS))
        norm_ids = {id(p) for layer in layers for p in layer.parameters(recurse=False)}
        for group in params:
            if id(group['params'][0]) in norm_ids and 'decay_mult' not in group:
                group['weight_decay'] = self.base_wd * self.paramwise_cfg['norm_decay_mult']


@OPTIM_WRAPPERS.register_module()
class BFloat16OptimWrapper(OptimWrapper):
    """OptimWrapper whose forward pass runs under autocast to bfloat16, on a CPU too.

    There is no loss scaling. MMEngine's AmpOptimWrapper always scales and wants an accelerator.
    """

    @contextmanager
    def optim_context(self, model: nn.Module) -> Iterator[None]:
        """Context of the forward pass and the loss."""
        with super().optim_context(model), autocast(dtype=torch.bfloat16):
            yield


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep back the log line that MMEngine writes for every parameter."""
    logger = MMLogger.get_current_instance()
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)
