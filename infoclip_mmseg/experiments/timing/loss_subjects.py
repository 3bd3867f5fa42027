"""LPAM, losses and entropies as subjects, on random input of real size.

Legend: B images, N positions, T classes, C channels.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from mmseg.registry import MODELS
from torch import Tensor

from infoclip_mmseg.experiments.timing.building import Built, view_size
from infoclip_mmseg.experiments.timing.inputs import random_labels, random_text
from infoclip_mmseg.experiments.timing.measure import Clock, Task, forward_backward
from infoclip_mmseg.experiments.timing.settings import Setting, SkippedError

ENTROPY_SAMPLES = 2304
"""Positions of four 384 views."""
EIGEN_ALPHA = 2.001
"""An order that needs eigenvalues and gives almost the value of order 2."""
Call = tuple[Callable[[], Any], list[Tensor]]
"""A function, and the tensors whose gradients are asked for."""


def lpam(setting: Setting, clock: Clock) -> Task:
    """The relation maps of teacher and student."""
    built = Built(setting)
    model = built.model()
    if not model.with_neck:
        raise SkippedError('the config has no neck')
    images, words = _embeddings(setting, model)
    wanted = [*images, *words, *model.neck.parameters()]

    def call() -> None:
        with built.precision():
            forward_backward(
                clock,
                'relation maps',
                lambda: torch.stack([model.neck(v, t) for v, t in zip(images, words)]),
                wanted,
            )

    return Task(call, setting.batch_size)


def losses(setting: Setting, clock: Clock) -> Task:
    """Each loss of the config."""
    built = Built(setting)
    model = built.model().train()
    calls = {'task': _task_loss(setting, model), **_distillation_losses(built, model)}

    def call() -> None:
        for name, (function, wanted) in calls.items():
            with built.precision():
                forward_backward(clock, name, function, wanted)

    return Task(call, setting.batch_size)


def _task_loss(setting: Setting, model: Any) -> Call:
    rows, columns = _grid(model)
    labels = random_labels(setting.batch_size, view_size(model), setting.num_classes)
    labels = labels.to(setting.device)
    shape = (setting.batch_size, setting.num_classes, 4 * rows, 4 * columns)
    logits = torch.randn(shape, device=setting.device, requires_grad=True)
    head = model.decode_head
    return lambda: sum(head.loss_by_feat(logits, labels).values()), [logits]


def _distillation_losses(built: Built, model: Any) -> dict[str, Call]:
    """The losses between teacher and student, on given relation maps or embeddings."""
    config, setting = built.cfg.model, built.setting
    images, words = _embeddings(setting, model)
    calls: dict[str, Call] = {}
    if model.with_neck:
        maps = [model.neck(v, t).detach().requires_grad_() for v, t in zip(images, words)]
        if config.get('loss_ib'):
            bottleneck = MODELS.build(config.loss_ib)
            fixed = (images[0].detach(), words[0].detach())
            calls['compression'] = (lambda: bottleneck(maps[0], *fixed), maps[:1])
        if config.get('loss_mi'):
            transfer = MODELS.build(config.loss_mi)
            calls['transfer'] = (lambda: transfer(*maps), maps)
    for loss_config in config.get('loss_distill') or ():
        loss = MODELS.build(loss_config)
        function = partial(_distil, loss, images, words, _grid(model), model)
        calls[loss_config['type']] = (function, [images[1], words[1]])
    return calls


def _distil(
    loss: Any, images: list[Tensor], words: list[Tensor], grid: tuple[int, int], model: Any
) -> Tensor:
    """A loss of the common interface, with the relation maps that it asks for."""
    from infoclip_mmseg.losses.base import Branch

    relate = model.neck if model.with_neck else None
    dense = [image.transpose(1, 2).unflatten(2, grid) for image in images]
    teacher, student = (Branch(v, t, relate) for v, t in zip(dense, words))
    return loss.distill(teacher, student)


def entropy(setting: Setting, clock: Clock) -> Task:
    """Order 2 against eigenvalues: the transfer loss over positions, and the entropy it is made of.

    Sections are the loss with its gradient, its value alone, and the entropy of a Gram matrix.
    """
    from infoclip_mmseg.losses.alignment import mutual_information_transfer
    from infoclip_mmseg.losses.entropy import gram_matrix, renyi_entropy

    shape = (1, ENTROPY_SAMPLES, setting.num_classes)
    features = [torch.randn(shape, device=setting.device, requires_grad=True) for _ in range(2)]
    gram = gram_matrix(features[0].detach())
    orders = {'order 2': 2.0, 'eigenvalues': EIGEN_ALPHA}

    def information(alpha: float) -> Tensor:
        first, second = features
        return mutual_information_transfer(first, second, alpha, samples='token')

    def call() -> None:
        for name, alpha in orders.items():
            forward_backward(clock, name, partial(information, alpha), features)
            with torch.no_grad():
                with clock(f'{name}, value'):
                    information(alpha)
                with clock(f'{name}, entropy'):
                    renyi_entropy(gram, alpha)

    return Task(call, info=dict(samples=ENTROPY_SAMPLES))


def _grid(model: Any) -> tuple[int, int]:
    size, patch = view_size(model), model.backbone.patch_size
    return size[0] // patch[0], size[1] // patch[1]


def _embeddings(setting: Setting, model: Any) -> tuple[list[Tensor], list[Tensor]]:
    """Random dense (B, N, C) and text embeddings (T, C) of teacher and student."""
    rows, columns = _grid(model)
    channels = model.backbone.embed_dim
    shape = (setting.batch_size, rows * columns, channels)
    device = setting.device
    images = [torch.randn(shape, device=device, requires_grad=True) for _ in range(2)]
    words = [random_text(setting.num_classes, 1, channels)[:, 0].to(device) for _ in range(2)]
    return images, [word.requires_grad_() for word in words]
