"""Reading dense and text embeddings out of a model by module paths."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from infoclip_mmseg.models.distillation.taps import (
    make_tap,
    make_taps,
    match_grid,
    pick,
    read_dense,
    read_modules,
    read_text,
    spread_queries,
)


class MaskStudent(nn.Module):
    """Queries and masks, computed twice as under deep supervision, and words with a background."""

    def __init__(self) -> None:
        super().__init__()
        self.queries = nn.Linear(2, 3)
        self.masks = nn.ModuleDict({'decoder': nn.Conv2d(2, 4, 1)})
        self.words = nn.Embedding(6, 3)

    def forward(self, x: torch.Tensor) -> None:
        for scale in (1.0, 2.0):
            self.queries(scale * torch.ones(2, 4, 2))
        self.masks['decoder'](x)
        self.words(torch.arange(6))


def test_queries_are_spread_by_their_masks():
    queries = torch.tensor([[[1.0, 0.0], [0.0, 3.0]]])
    masks = torch.full((1, 2, 1, 2), -100.0)
    masks[0, 0, 0, 0] = masks[0, 1, 0, 1] = 100.0
    masks[0, 0, 0, 1] = 0.0  # half of query 0
    dense = spread_queries(queries, masks)
    torch.testing.assert_close(dense[0, :, 0], torch.tensor([[1.0, 0.5], [0.0, 3.0]]))
    with pytest.raises(ValueError, match='same B and Q'):
        spread_queries(queries, masks[:, :1])


def test_grids_shrink_by_means_and_grow_bilinearly():
    dense = torch.arange(16.0).reshape(1, 1, 4, 4)
    assert match_grid(dense, (2, 2)).flatten().tolist() == [2.5, 4.5, 10.5, 12.5]
    assert match_grid(dense, (4, 4)).equal(dense)
    assert match_grid(dense, (8, 8)).shape == (1, 1, 8, 8)


def test_the_last_run_of_a_module_counts_and_hooks_go():
    model = MaskStudent()
    dense = dict(module='queries', masks=dict(module='masks.decoder'))
    taps = make_taps(dense, dict(module='words'))
    x = torch.randn(2, 2, 5, 6)
    with read_modules(model, taps) as read:
        model(x)
    assert not model.queries._forward_hooks
    expected = spread_queries(model.queries(2.0 * torch.ones(2, 4, 2)), model.masks['decoder'](x))
    torch.testing.assert_close(read_dense(read, taps), expected)
    torch.testing.assert_close(read_text(read, taps, 5), model.words.weight[:5])
    with pytest.raises(ValueError, match='6 text embeddings, but the data set has 7'):
        read_text(read, taps, 7)


def test_inputs_and_entries_of_outputs():
    class Pair(nn.Module):
        def forward(self, x):
            return {'a': [x, x + 1]}

    root = nn.Sequential(Pair())
    taps = dict(
        inside=make_tap('0', index=('a', -1)),
        before=make_tap('0', side='input'),
        late=make_tap('0'),
    )
    with read_modules(root, taps) as read:
        root(torch.zeros(3, 3))
    assert pick(read, 'inside', taps['inside'], (2,)).sum() == 9
    assert pick(read, 'before', taps['before'], (2,)).sum() == 0
    with pytest.raises(ValueError, match="a dict of .*'a'"):
        pick(read, 'late', taps['late'], (2,))
    with pytest.raises(ValueError, match='did not run'):
        pick({}, 'late', taps['late'], (2,))


def test_no_text_stands_for_the_teachers():
    assert read_text({}, make_taps(dict(module='x'), None), 3) is None
