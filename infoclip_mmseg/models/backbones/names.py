"""Names of CLIP's tensors and the packing of attention weights (pure functions).

The model holds OpenAI's layout, which is open_clip's too, but for the projections of attention:
there query, key and value weights are one tensor, here three (:func:`split_qkv`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

import torch
from torch import Tensor

State = Mapping[str, Tensor]
SPLIT = ('q_proj_weight', 'k_proj_weight', 'v_proj_weight')
# Packed weights and their parts: of open_clip's blocks, and of timm's.
_PACKINGS = {
    'in_proj_weight': SPLIT,
    'attn.qkv.weight': ('attn.qkv.q_weight', 'attn.qkv.k_weight', 'attn.qkv.v_weight'),
}


def split_qkv(state: State) -> dict[str, Tensor]:
    """Packed query, key and value weights (3C, C) as tensors (C, C) of their own, which are views.

    Tensors of other names stay as they are.
    """
    split: dict[str, Tensor] = {}
    for name, tensor in state.items():
        packed = next((packed for packed in _PACKINGS if name.endswith(packed)), None)
        if packed is not None:
            prefix = name.removesuffix(packed)
            weights = zip(_PACKINGS[packed], tensor.chunk(3))
            split.update((prefix + part, weight) for part, weight in weights)
        else:
            split[name] = tensor
    return split


def pack_qkv(state: State) -> dict[str, Tensor]:
    """The inverse of :func:`split_qkv`: OpenAI's and open_clip's layout."""
    packed: dict[str, Tensor] = {}
    for name, tensor in state.items():
        whole = next((k for k, parts in _PACKINGS.items() if name.endswith(parts)), None)
        if whole is None:
            packed[name] = tensor
        elif name.endswith(first := _PACKINGS[whole][0]):
            prefix = name.removesuffix(first)
            packed[prefix + whole] = torch.cat([state[prefix + part] for part in _PACKINGS[whole]])
    return packed


class Names(NamedTuple):
    """OpenAI's beginnings of names and those of another library."""

    blocks: dict[str, str]  # before the numbers of blocks
    block: dict[str, str]  # after the number of a block
    others: dict[str, str]  # of tensors that belong to no block

    def rename(self, name: str, inverse: bool = False) -> str:
        """OpenAI's name to the other library's, or back; of a block also its prefix alone."""
        for old, new in _pairs(self.blocks, inverse):
            if name.startswith(old):
                number, _, rest = name.removeprefix(old).partition('.')
                return f'{new}{number}.{_swap_start(rest, self.block, inverse)}'
        return _swap_start(name, self.others, inverse)


def _pairs(table: dict[str, str], inverse: bool) -> Iterable[tuple[str, str]]:
    return zip(table.values(), table) if inverse else table.items()


def _swap_start(name: str, table: dict[str, str], inverse: bool) -> str:
    for old, new in _pairs(table, inverse):
        if name.startswith(old):
            return new + name.removeprefix(old)
    return name
