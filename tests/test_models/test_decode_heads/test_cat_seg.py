"""CATSegHead on batches, grids and vocabularies that differ from the usual ones."""

from __future__ import annotations

import pytest
import torch

from infoclip_mmseg.models import CATSegHead, ImageFeatures


@pytest.fixture
def head(toy_cfg):
    config = toy_cfg()['decode_head']
    config.pop('type')
    return CATSegHead(embed_dim=32, guidance_in_channels=128, **config).eval()


def features(batch: int, grid: tuple[int, int]) -> ImageFeatures:
    blocks = tuple(torch.randn(batch, 128, *grid) for _ in range(2))
    return ImageFeatures(torch.randn(batch, 32, *grid), torch.randn(batch, 32), blocks)


def pick(x: ImageFeatures, index: int) -> ImageFeatures:
    keep = slice(index, index + 1)
    return ImageFeatures(x.dense[keep], x.cls[keep], tuple(block[keep] for block in x.blocks))


@pytest.mark.parametrize('grid', [(6, 6), (4, 7), (5, 3), (2, 9), (1, 1)])
@pytest.mark.parametrize('classes', [1, 5, 8, 12])
def test_images_of_a_batch_do_not_mix(head, grid, classes):
    x, text = features(2, grid), torch.randn(classes, 1, 32)
    logits = head(x, text)
    assert logits.shape == (2, classes, 4 * grid[0], 4 * grid[1])
    alone = torch.cat([head(pick(x, i), text) for i in range(2)])
    torch.testing.assert_close(logits, alone, rtol=1e-3, atol=1e-4)
    if classes > 8:
        assert ((logits == -100).flatten(2).all(-1).sum(1) == classes - 8).all()


def test_order_of_classes_does_not_matter(head):
    x, text = features(2, (4, 6)), torch.randn(6, 1, 32)
    order = torch.randperm(6)
    torch.testing.assert_close(head(x, text)[:, order], head(x, text[order]), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize('class_chunk', [1, 3, 64])
def test_chunks_and_checkpointing_change_nothing(head, class_chunk):
    x, text = features(2, (4, 6)), torch.randn(6, 1, 32)
    expected = head(x, text)
    head.class_chunk = class_chunk
    torch.testing.assert_close(head(x, text), expected, rtol=1e-4, atol=1e-5)
    head.train()
    plain = head(x, text)
    head.with_cp = True
    torch.testing.assert_close(head(x, text), plain, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize('class_chunk', [0, 3])
def test_recomputation_changes_no_gradient(head, class_chunk):
    x, text = features(2, (5, 7)), torch.randn(6, 1, 32)
    head.train()
    head.class_chunk = class_chunk
    gradients = []
    for head.with_cp in (False, True):
        loss = head(x, text).square().mean()
        gradients.append(torch.autograd.grad(loss, list(head.parameters())))
    for plain, recomputed in zip(*gradients):
        torch.testing.assert_close(recomputed, plain, rtol=1e-4, atol=1e-6)


def test_pooling_is_for_training_only(head):
    x, text = features(1, (4, 6)), torch.randn(5, 1, 32)
    evaluated = head(x, text)
    head.train()
    assert not torch.allclose(head(x, text), evaluated, atol=1e-3)
    head.pooling_size = 1
    torch.testing.assert_close(head(x, text), evaluated, rtol=1e-4, atol=1e-5)


def test_all_head_parameters_get_gradients(head):
    head.train()
    head(features(2, (4, 6)), torch.randn(5, 1, 32)).square().mean().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in head.parameters())


@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16])
def test_autocast(head, dtype):
    if dtype == torch.float16 and not hasattr(torch, 'get_autocast_dtype'):
        pytest.skip('torch < 2.4 has no float16 autocast on CPU')
    x, text = features(2, (4, 6)), torch.randn(12, 1, 32)
    expected = head(x, text)
    with torch.autocast('cpu', dtype=dtype):
        logits = head(x, text)
    decoded = (expected != -100) & (logits != -100)
    error = (logits.float() - expected)[decoded].std() / expected[decoded].std()
    assert torch.isfinite(logits).all()
    assert error < 0.1


def test_wrong_features_are_refused(head):
    with pytest.raises(ValueError, match='embed_dim, num_prompts and guidance_in_channels'):
        head(features(1, (4, 4)), torch.randn(5, 1, 16))


def test_sizes_of_a_part_win_over_the_shorthand():
    shorthand = dict(num_layers=1, hidden_dim=48, decoder_dims=(16, 16))
    parts = dict(aggregation=dict(num_layers=3), upsampling=dict(decoder_dims=(32, 16)))
    head = CATSegHead(embed_dim=32, guidance_in_channels=128, **shorthand, **parts)
    assert len(head.layers) == 3
    assert [stage.conv2.out_channels for stage in head.decoder] == [32, 16]
    assert head.cost_embed.out_channels == 48


@pytest.mark.parametrize('wrong', [dict(depth=2), dict(aggregation=dict(depth=2))])
def test_unknown_sizes_are_refused(wrong):
    with pytest.raises(TypeError, match='depth'):
        CATSegHead(embed_dim=32, guidance_in_channels=128, **wrong)
