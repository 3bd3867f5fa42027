"""CosineHead: zero-shot segmentation without weights."""

from __future__ import annotations

import pytest
import torch

from infoclip_mmseg.models import CosineHead, ImageFeatures


def test_logits_are_cosines():
    head = CosineHead(embed_dim=8)
    features = ImageFeatures(torch.randn(2, 8, 3, 5), torch.zeros(2, 8), ())
    text = torch.randn(4, 2, 8)
    logits = head(features, text)
    assert logits.shape == (2, 4, 3, 5)
    mean = text[3].mean(0)
    expected = torch.cosine_similarity(features.dense[1, :, 2, 4], mean, dim=0)
    torch.testing.assert_close(logits[1, 3, 2, 4], expected)
    assert logits.abs().max() <= 1 + 1e-6
    assert not list(head.parameters())


def test_there_is_nothing_to_train():
    head = CosineHead()
    features = ImageFeatures(torch.randn(1, 8, 2, 2), torch.zeros(1, 8), ())
    with pytest.raises(RuntimeError, match='nothing to train'):
        head.loss(features, torch.randn(3, 1, 8), torch.zeros(1, 8, 8).long())


def test_it_segments_and_takes_the_checkpoint_of_another_head(toy):
    trained = toy(seed=3)
    zero_shot = toy(seed=5)
    zero_shot.decode_head = CosineHead()
    result = zero_shot.load_state_dict(trained.state_dict(), strict=False)
    assert not result.missing_keys
    zero_shot.eval().set_vocabulary(['wall', 'sky'])
    out = zero_shot.segment(torch.rand(2, 3, 48, 64) * 255)
    assert out.shape == (2, 2, 80, 80)
