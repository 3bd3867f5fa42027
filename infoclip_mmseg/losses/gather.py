"""Joins the samples of all ranks, so that batch-wise losses see the global batch."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from mmengine.dist import all_gather, get_rank, get_world_size
from torch import Tensor


def gather_samples(*features: Tensor) -> tuple[Tensor, ...]:
    """Gathers the rows of all ranks with the gradient that DDP's averaging needs.

    Every rank computes the same loss l(x_1, ..., x_W) of the gathered rows, but back-propagates
    only into its own rows x_r. DDP then averages over ranks, which gives
    (1/W) sum_r s dl/dx_r dx_r/dtheta, where s is the scale put on the gradient of the own rows.
    With s = W that sum is exactly dl/dtheta, the gradient of one process that holds the whole
    batch, whatever the share of each rank. Hence the own rows enter with their gradient scaled by
    W (the value is unchanged) and backward needs no communication.

    Args:
        *features: Matrices (b, d_i) of the same b local samples; b may differ between ranks.

    Returns:
        The matrices (B, d_i) of all samples in rank order, B the sum of b over ranks. Without a
        process group, or with one rank, the input as it is.

    Raises:
        ValueError: The widths d_i differ between ranks (raised on all of them).
    """
    world_size = get_world_size()
    if world_size == 1:
        return features
    widths = [feature.shape[1] for feature in features]
    local = torch.cat(features, dim=1)
    sizes = _batch_sizes(local, widths)
    padded = F.pad(local.detach(), (0, 0, 0, max(sizes) - len(local)))
    rows = [rows[:size] for rows, size in zip(all_gather(padded), sizes)]
    rows[get_rank()] = local + (world_size - 1) * (local - local.detach())
    return torch.split(torch.cat(rows), widths, dim=1)


def _batch_sizes(local: Tensor, widths: list[int]) -> list[int]:
    """Local batch size of every rank; checks that the widths are equal on all of them."""
    shape = torch.tensor([len(local), *widths], device=local.device)
    shapes = torch.stack(all_gather(shape)).tolist()
    for rank, (_, *others) in enumerate(shapes):
        if others != shapes[0][1:]:
            raise ValueError(
                f'features per image have {others} elements on rank {rank}, but '
                f'{shapes[0][1:]} on rank 0; batch-wise losses need the same feature grid and '
                'the same number of classes on every rank'
            )
    return [size for size, *_ in shapes]
