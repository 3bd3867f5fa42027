"""How a distillation loss gets what it compares: one interface for every segmentor.

A segmentor makes a :class:`Branch` of its teacher and one of itself, and hands both to
:func:`distill` with the losses of its config. Each loss takes from them what it needs.

Legend: B images, H W dense grid, N = H*W positions row by row, T classes, C channels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import cached_property
from typing import Any

from mmseg.registry import MODELS
from torch import Tensor, nn
from torch.func import functional_call

from infoclip_mmseg.utils.tensors import cosine

cosine_relation = cosine
"""Plain cosine cost volume, the relation map of a branch without LPAM."""


class Branch:
    """Embeddings of the teacher or of the student, and how its positions relate to the classes.

    Args:
        dense: Dense image embeddings (B, C, H, W).
        text: Text embeddings, (T, C) shared by the batch or (B, T, C) by image.
        relate: Maps ``positions`` and ``text`` to a relation map, such as :class:`LPAM`; None
            takes the plain cosine cost volume.
        trunk: Map of the last stage (B, K, H, W) before it is projected, where there is one.
    """

    def __init__(
        self,
        dense: Tensor,
        text: Tensor,
        relate: Callable[[Tensor, Tensor], Tensor] | None = None,
        trunk: Tensor | None = None,
    ) -> None:
        fits = dense.dim() == 4 and text.dim() in (2, 3) and dense.shape[1] == text.shape[-1]
        if not fits or (text.dim() == 3 and len(text) != len(dense)):
            raise ValueError(
                'dense embeddings must be (B, C, H, W) and text embeddings (T, C) or (B, T, C), '
                f'but they are {tuple(dense.shape)} and {tuple(text.shape)}; of several prompts '
                'of a class take the mean first'
            )
        self.dense, self.text, self._trunk = dense, text, trunk
        self._relate = cosine_relation if relate is None else relate

    @property
    def trunk(self) -> Tensor:
        """Map of the last stage (B, K, H, W); a ValueError where the encoder has none."""
        if self._trunk is None:
            raise ValueError(
                'the encoder has no trunk map: it is of a ConvNeXt CLIP; compare dense embeddings'
            )
        return self._trunk

    @cached_property
    def positions(self) -> Tensor:
        """Dense embeddings as (B, N, C)."""
        return self.dense.flatten(2).transpose(1, 2)

    @cached_property
    def relation(self) -> Tensor:
        """Relation map (B, N, T); computed when a loss first asks for it."""
        return self._relate(self.positions, self.text)

    @cached_property
    def cosines(self) -> Tensor:
        """Plain cosines (B, N, T), whatever computes the relation map."""
        plain = self._relate is cosine_relation
        return self.relation if plain else cosine_relation(self.positions, self.text)

    @cached_property
    def fixed_relation(self) -> Tensor:
        """The relation map, from which no gradient reaches the module that computes it."""
        if not isinstance(self._relate, nn.Module):
            return self.relation
        weights = {name: weight.detach() for name, weight in self._relate.named_parameters()}
        return functional_call(self._relate, weights, (self.positions, self.text))


class DistillationLoss(nn.Module):
    """Base of the losses between teacher and student.

    Args:
        loss_weight: Factor of the loss.
        loss_name: Key of the loss; it is optimised only if it starts with 'loss_'. None takes the
            class's ``default_name``.
    """

    default_name = 'loss_distill'
    compares: str | None = None
    """Attribute of both branches that ``forward`` takes, unless ``distill`` is overridden."""
    shown: tuple[str, ...] = ('loss_weight', 'loss_name')
    """Options that are shown when the model is printed."""

    def __init__(self, loss_weight: float = 1.0, loss_name: str | None = None) -> None:
        super().__init__()
        self.loss_weight = loss_weight
        self.loss_name = loss_name or self.default_name

    def distill(self, teacher: Branch, student: Branch) -> Tensor:
        """The loss of a batch, a scalar; takes from the branches what ``forward`` needs."""
        if self.compares is None:
            raise NotImplementedError(f'{type(self).__name__} must implement distill')
        return self(getattr(teacher, self.compares), getattr(student, self.compares))

    def extra_repr(self) -> str:
        """The options ``shown``."""
        return ', '.join(f'{name}={getattr(self, name)!r}' for name in self.shown)


def build_losses(configs: Sequence[dict]) -> nn.ModuleList:
    """Build losses from configs of registered :class:`DistillationLoss` classes.

    Another class is a TypeError, the same ``loss_name`` twice a ValueError.
    """
    losses = nn.ModuleList(MODELS.build(config) for config in configs)
    for loss in losses:
        if not isinstance(loss, DistillationLoss):
            raise TypeError(
                f'{type(loss).__name__} cannot compare a teacher with a student: derive it from '
                'infoclip_mmseg.losses.DistillationLoss, or name a loss that is'
            )
    names = [loss.loss_name for loss in losses]
    if len(set(names)) < len(names):
        raise ValueError(f'losses are named {names}; give each a loss_name of its own')
    return losses


def distill(teacher: Branch, student: Branch, losses: Iterable[Any]) -> dict[str, Tensor]:
    """All losses, from :func:`build_losses`, between a teacher and a student by ``loss_name``."""
    return {loss.loss_name: loss.distill(teacher, student) for loss in losses}
