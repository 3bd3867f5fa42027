"""Sliding windows without a global view, against a window at a time by hand."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from infoclip_mmseg.models.views.plain_windows import average_windows, pad_to_patches


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
    out = average_windows(images, predict, window, stride, (8, 8), view_batch_size)
    assert out.shape == (3, 2, *size) and out.dtype == torch.float32
    for image, one in zip(images, out):
        torch.testing.assert_close(one, by_hand(image, window, stride, 8), rtol=1e-5, atol=1e-5)


def test_padding_is_even_and_only_where_it_is_needed():
    images = torch.ones(1, 3, 13, 16)
    padded, (top, left) = pad_to_patches(images, (8, 8))
    assert padded.shape == (1, 3, 16, 16) and (top, left) == (1, 0)
    assert padded[0, 0, :, 0].tolist() == [0.0] + [1.0] * 13 + [0.0] * 2
    same, corner = pad_to_patches(images[:, :, :8], (8, 8))
    assert same.shape == (1, 3, 8, 16) and corner == (0, 0)
