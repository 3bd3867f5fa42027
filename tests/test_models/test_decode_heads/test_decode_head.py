"""CATSegHead on batches, grids and vocabularies that differ from the usual ones."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from infoclip_mmseg.models import CATSegHead, ImageFeatures
from infoclip_mmseg.models.layers.cost_volume import (
    cost_volume,
    max_similarity,
    scatter_logits,
    top_classes,
)
from infoclip_mmseg.models.layers.guided_attention import (
    GuidedWindowAttention,
    cut_windows,
    linear_attention,
)


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


def test_guided_projection_is_linear_on_the_concatenation():
    layer, x, guidance = GuidedWindowAttention(4, 3, 2), torch.randn(2, 5, 4), torch.randn(2, 1, 3)
    both = torch.cat([x, guidance.expand(2, 5, 3)], dim=-1)
    expected = torch.cat([layer.q(both), layer.k(both), layer.v(x)], dim=-1)
    torch.testing.assert_close(layer.project(x, layer.guide(guidance)), expected)


def test_linear_attention_padding_is_exact():
    q, k, v = torch.randn(3, 2, 5, 4).unbind()
    key, value = torch.randn(2, 1, 4), torch.randn(2, 1, 4)
    padded = [torch.cat([x, p.expand(2, 3, 4)], dim=1) for x, p in ((k, key), (v, value))]
    expected = linear_attention(q, *padded)
    torch.testing.assert_close(linear_attention(q, k, v, (key, value, 3)), expected)


def roll_windows(x, window: int, shift: int):
    """Cyclic shift and padded windows as Swin defines them, (S, window * window, ...)."""
    x = F.pad(x, (0, -x.shape[1] % window, 0, -x.shape[0] % window), value=-1)
    x = x.roll((-shift, -shift), (0, 1)).unflatten(1, (-1, window)).unflatten(0, (-1, window))
    return x.transpose(1, 2).flatten(2).flatten(0, 1)


@pytest.mark.parametrize('shift', [0, 1])
@pytest.mark.parametrize('grid', [(6, 6), (5, 7), (3, 8), (9, 4)])
def test_windows_are_those_of_the_masked_cyclic_shift(grid, shift):
    height, width = grid
    windows = cut_windows(height, width, 3, shift, torch.device('cpu'))
    sizes = [length for count, length in windows.groups for _ in range(count)]
    parts = [set(part.tolist()) for part in windows.order.split(sizes)]
    if min(grid) <= 3:
        shift = 0
    index = torch.arange(height * width).view(grid)
    rolled = roll_windows(index, 3, shift)
    expected = set()
    for inside in rolled.tolist():
        # Regions of Swin's mask: positions that the roll brought from the other border.
        sides = {i: (i // width < shift, i % width < shift) for i in inside if i >= 0}
        expected |= {
            frozenset(i for i, side in sides.items() if side == which)
            for which in set(sides.values())
        }
    # Windows without the shifted border are whole, whatever their position.
    assert {frozenset(part) for part in parts} == expected
    assert sorted(i for part in parts for i in part) == list(range(height * width))


def test_windows_are_sorted_and_put_back():
    x = torch.randn(2, 3, 5, 7, 4, dtype=torch.float64, requires_grad=True)
    windows = cut_windows(5, 7, 3, 1, x.device)
    torch.testing.assert_close(windows.unsort(windows.sort(x), (5, 7)), x)
    weight = torch.randn(2, 3, 35, 4, dtype=torch.float64)
    (grad,) = torch.autograd.grad((windows.sort(x) * weight).sum(), x)
    torch.testing.assert_close(windows.sort(grad), weight)
