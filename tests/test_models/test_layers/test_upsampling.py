"""The decoder against its definition, stage by stage."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from infoclip_mmseg.models.layers.upsampling import GuidedUpsampling, conv_steps, decode


def upsample(stage: GuidedUpsampling, maps: torch.Tensor, guidance: torch.Tensor) -> torch.Tensor:
    """A stage on the maps of one class of each image."""
    maps = torch.cat([stage.up(maps), guidance], dim=1)
    maps = F.relu(stage.norm1(stage.conv1(maps)))
    return F.relu(stage.norm2(stage.conv2(maps)))


def test_the_chain_is_the_stages_one_after_the_other():
    stages = [GuidedUpsampling(8, 32, 2).double(), GuidedUpsampling(32, 16, 3).double()]
    last = nn.Conv2d(16, 1, 3, padding=1).double()
    x = torch.randn(2, 3, 4, 5, 8, dtype=torch.float64)
    guidance = [torch.randn(2, c, 4 * s, 5 * s).double() for c, s in ((2, 2), (3, 4))]
    logits = decode(x, conv_steps(stages, guidance, last), False, 2)
    for i in range(3):
        maps = x[:, i].permute(0, 3, 1, 2)
        for stage, guide in zip(stages, guidance):
            maps = upsample(stage, maps, guide)
        torch.testing.assert_close(logits[:, i], last(maps)[:, 0])
