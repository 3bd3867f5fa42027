"""Parts of features that run one after the other."""

from __future__ import annotations

import pytest
import torch

from infoclip_mmseg.models.layers import chunks
from infoclip_mmseg.models.layers.chunks import chunk_size, run_chunks


class Step:
    """2 exp(x), which remembers the sizes of what it ran on."""

    def __init__(self):
        self.sizes = []

    def __call__(self, x):
        self.sizes.append(tuple(x.shape[1:3]))
        return x.exp() * 2


@pytest.mark.parametrize(
    ('dim', 'class_chunk', 'sizes'),
    [
        (1, 3, [(1, 3)] * 5),  # of two images: one class of both
        (1, 4, [(2, 3)] * 2 + [(1, 3)]),
        (1, 99, [(5, 3)]),
        (1, 0, [(5, 3)]),
        (2, 1, [(5, 1)] * 3),
        (2, 0, [(5, 3)]),
    ],
)
def test_parts_give_what_the_whole_gives(monkeypatch, dim, class_chunk, sizes):
    monkeypatch.setattr(chunks, 'CPU_CHUNK', 1)
    step, x = Step(), torch.randn(2, 5, 3, 4, 6, requires_grad=True)
    expected = x.exp() * 2
    out = run_chunks([step], x, dim, False, class_chunk)
    assert step.sizes == sizes
    torch.testing.assert_close(out, expected)
    torch.testing.assert_close(*(torch.autograd.grad(y.sum(), x) for y in (out, expected)))


@pytest.mark.parametrize('recompute', [False, True])
def test_recomputation_runs_each_step_once_more(recompute):
    first, second, x = Step(), Step(), torch.randn(1, 4, 2, 2, 3, requires_grad=True)
    out = run_chunks([first, second], x, 1, recompute, 2)
    out.sum().backward()
    assert len(first.sizes) == len(second.sizes) == (4 if recompute else 2)


def test_without_gradients_the_input_is_overwritten():
    x = torch.randn(1, 4, 2, 2, 3)
    expected = x.exp() * 2
    with torch.no_grad():
        out = run_chunks([Step()], x, 1, True, 1)
    assert out is x
    torch.testing.assert_close(x, expected)


def test_a_cpu_takes_what_fits_into_its_caches():
    x = torch.zeros(2, 64, 24, 24, 1)
    assert chunk_size(x, 1, None) == chunks.CPU_CHUNK // (2 * 24 * 24) == 4
    assert chunk_size(x, 2, None) == chunk_size(x, 2, 7) == chunks.CPU_CHUNK // (2 * 64 * 24) == 1
    assert chunk_size(x.to('meta'), 1, None) == 64
