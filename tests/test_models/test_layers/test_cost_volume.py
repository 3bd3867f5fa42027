"""The cost volume and the choice of classes."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from infoclip_mmseg.models.layers.cost_volume import (
    cost_volume,
    max_similarity,
    scatter_logits,
    top_classes,
)


def test_cost_volume_and_top_classes():
    image, text = torch.randn(2, 8, 3, 4), torch.randn(6, 2, 8)
    volume = cost_volume(image, text)
    expected = F.cosine_similarity(image[1, :, 2, 3], text[4, 1], dim=0)
    torch.testing.assert_close(volume[1, 4, 1, 2, 3], expected)
    classes = top_classes(max_similarity(image, text), 2)
    best = volume.amax((2, 3, 4)).sort(descending=True).indices[:, :2].sort().values
    assert torch.equal(classes, best)
    logits = torch.randn(2, 2, 5, 5)
    full = scatter_logits(logits, classes, 6)
    assert torch.equal(full[1, classes[1, 0]], logits[1, 0])
    assert (full == -100).sum() == 2 * 4 * 25
