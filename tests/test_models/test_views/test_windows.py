"""Layouts of views and what they average to, against a window at a time by hand."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from infoclip_mmseg.models.decode_heads.base import OpenVocabHead
from infoclip_mmseg.models.layers.cost_volume import ClassLogits
from infoclip_mmseg.models.views.class_maps import class_maps
from infoclip_mmseg.models.views.windows import (
    region_of,
    slide_layout,
    view_logits,
    whole_layout,
    windows_layout,
)


class PlainHead(OpenVocabHead):
    """Scores are the logits."""

    def scores(self, logits):
        return logits.float()


def predict(views):
    """Two maps at a quarter of the size that depend on what the view shows and how it is cut."""
    pooled = F.avg_pool2d(views, 4)
    return torch.stack([pooled.sum(1), pooled[:, 0] - views.mean((1, 2, 3))[:, None, None]], 1)


def by_hand(image, window, stride, patch):
    """mmseg's loop over windows, with the padding to patches of ClearCLIP's code."""
    _, height, width = image.shape
    total, count = torch.zeros(2, height, width), torch.zeros(height, width)
    rows = max(height - window[0] + stride[0] - 1, 0) // stride[0] + 1
    columns = max(width - window[1] + stride[1] - 1, 0) // stride[1] + 1
    for row in range(rows):
        for column in range(columns):
            bottom = min(row * stride[0] + window[0], height)
            right = min(column * stride[1] + window[1], width)
            top, left = max(bottom - window[0], 0), max(right - window[1], 0)
            view = image[None, :, top:bottom, left:right]
            h, w = view.shape[2:]
            more_h, more_w = (patch - h % patch) % patch, (patch - w % patch) % patch
            before_h, before_w = more_h // 2, more_w // 2
            view = F.pad(view, (before_w, more_w - before_w, before_h, more_h - before_h))
            out = F.interpolate(predict(view), view.shape[2:], mode='bilinear')
            total[:, top:bottom, left:right] += out[
                0, :, before_h : before_h + h, before_w : before_w + w
            ]
            count[top:bottom, left:right] += 1
    assert (count > 0).all()
    return total / count


@pytest.mark.parametrize('size', [(32, 32), (32, 56), (45, 33), (20, 64), (19, 90)])
@pytest.mark.parametrize(('window', 'stride'), [((32, 32), (16, 16)), ((16, 24), (16, 20))])
@pytest.mark.parametrize('view_batch_size', [1, 4])
def test_windows_by_hand(size, window, stride, view_batch_size):
    images = torch.randn(3, 3, *size)
    layout = windows_layout(images, window, stride, (8, 8))
    views = view_logits(images, lambda x: ClassLogits(predict(x), None), layout, view_batch_size)
    for image, of_image in zip(images, views, strict=True):
        ((chosen, maps),) = class_maps(of_image, PlainHead())
        assert chosen.tolist() == [0, 1]
        assert maps.shape == (2, *size) and maps.dtype == torch.float32
        torch.testing.assert_close(maps, by_hand(image, window, stride, 8), rtol=1e-5, atol=1e-5)


def test_padding_is_even_and_only_where_it_is_needed():
    images = torch.ones(1, 3, 13, 16)
    layout = windows_layout(images, (99, 99), (8, 8), (8, 8))
    assert layout.window == (13, 16)
    assert layout.padding == (1, 2, 0, 0) and layout.padded == (16, 16)
    seen = []
    for _ in view_logits(images, lambda x: seen.append(x) or ClassLogits(x, None), layout, 1):
        pass
    assert seen[0][0, 0, :, 0].tolist() == [0.0] + [1.0] * 13 + [0.0] * 2
    assert windows_layout(images[:, :, :8], (8, 8), (8, 8), (8, 8)).padding == (0, 0, 0, 0)


@pytest.mark.parametrize(
    'layout',
    [
        slide_layout(torch.zeros(1, 3, 40, 50), (70, 90), (48, 48), 0.333),
        slide_layout(torch.zeros(1, 3, 40, 50), (30, 30), (48, 48), 0.333),
        windows_layout(torch.zeros(1, 3, 40, 50), (16, 24), (7, 20), (8, 8)),
    ],
)
def test_weights_sum_to_one_at_each_pixel(layout):
    total = torch.zeros(layout.size)
    for view in layout.views:
        total[region_of(view, layout)] += view.weight
    torch.testing.assert_close(total, torch.ones(layout.size))


def test_half_of_a_slide_is_the_whole_image():
    layout = slide_layout(torch.zeros(1, 3, 40, 50), (70, 90), (48, 48), 0.333)
    *windows, whole = layout.views
    assert whole == (None, 0.5) and len(windows) == 6
    assert all(view.weight.max() <= 0.5 for view in windows)
    assert layout.resizes_logits


def test_the_whole_image_is_one_view():
    images = torch.randn(2, 3, 9, 7)
    seen, layout = [], whole_layout(images)
    views = view_logits(
        images, lambda x: seen.append(x) or ClassLogits(x[:, :2, ::2], None), layout, 2
    )
    for image, of_image in zip(images, views, strict=True):
        ((_, maps),) = class_maps(of_image, PlainHead())
        assert torch.equal(maps, image[:2, ::2])
    assert len(seen) == 1 and torch.equal(seen[0], images)


def test_the_whole_image_in_whole_patches():
    """Padded at the bottom and right; nothing is said of the padding."""
    images, seen = torch.randn(2, 3, 9, 7), []
    layout = whole_layout(images, (4, 4))
    views = view_logits(images, lambda x: seen.append(x) or ClassLogits(x[:, :2], None), layout, 2)
    for image, of_image in zip(images, views, strict=True):
        ((_, maps),) = class_maps(of_image, PlainHead())
        torch.testing.assert_close(maps, image[:2])
    for padded, image in zip(torch.cat(seen), images):
        assert padded.shape == (3, 12, 8) and torch.equal(padded[:, :9, :7], image)
        assert padded[:, 9:].eq(0).all() and padded[:, :, 7:].eq(0).all()
    assert whole_layout(torch.zeros(1, 3, 8, 12), (4, 4)) == whole_layout(torch.zeros(1, 3, 8, 12))
