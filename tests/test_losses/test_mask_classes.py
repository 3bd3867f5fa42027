"""Masks that do not learn: their labels by matching, and the loss of their classes."""

from __future__ import annotations

import itertools

import pytest
import torch

from infoclip_mmseg.losses.masks import NO_LABEL, MaskClassLoss, match_masks, stack_targets

VOID = 9


def boxes(*rows, size=(8, 12)) -> torch.Tensor:
    """Masks, 0 and 1, of the columns from..to of each row."""
    masks = torch.zeros(len(rows), *size)
    for mask, (start, end) in zip(masks, rows):
        mask[:, start:end] = 1
    return masks


def test_matching_is_the_best_of_all_pairings():
    """By trying every injection of targets into masks."""
    torch.manual_seed(3)
    masks = torch.randn(1, 5, 6, 7)
    truths = (torch.randn(3, 6, 7) > 0).float()
    labels = torch.tensor([4, 2, 4])
    inside = (masks[0] > 0).float()
    common = torch.einsum('nhw,qhw->nq', truths, inside)
    iou = common / (truths.sum((1, 2))[:, None] + inside.sum((1, 2))[None] - common)
    best = max(
        itertools.permutations(range(5), 3),
        key=lambda order: sum(iou[n, q] for n, q in enumerate(order)),
    )
    expected = torch.full((5,), VOID)
    expected[list(best)] = labels
    assert torch.equal(match_masks(masks, [(labels, truths)], VOID)[0], expected)


def test_matching_knows_no_classes_and_needs_overlap():
    """One mask for two targets; a target that nothing overlaps; an image without targets."""
    masks = torch.stack([boxes((0, 4), (0, 5), (10, 12)), boxes((0, 6), (6, 12), (3, 9))]) * 2 - 1
    targets = [
        (torch.tensor([7, 7, 1]), boxes((0, 4), (0, 5), (6, 8))),
        (torch.zeros(0, dtype=torch.long), torch.zeros(0, 8, 12)),
    ]
    assert match_masks(masks, targets, VOID).tolist() == [[7, 7, VOID], [VOID] * 3]


def test_masks_may_have_another_size_than_the_targets():
    coarse = boxes((0, 2), (2, 6), size=(4, 6))[None] * 2 - 1
    fine = boxes((5, 12), (0, 4))
    labels = match_masks(coarse, [(torch.tensor([3, 5]), fine)], VOID)
    assert labels.tolist() == [[5, 3]]
    many = torch.cat([coarse] * 600, dim=1)  # more masks than targets by far
    labels = match_masks(many, [(torch.tensor([3, 5]), fine)], VOID)
    assert sorted(labels[labels != VOID].tolist()) == [3, 5]


def test_the_loss_by_hand():
    """Weighted mean, as torch computes it; void counts a tenth, what fills up nothing."""
    torch.manual_seed(0)
    logits = torch.randn(2, 3, 5, requires_grad=True)
    labels = torch.tensor([[0, 4, NO_LABEL], [3, 4, NO_LABEL]])
    loss = MaskClassLoss(loss_weight=3.0, void_weight=0.1)(logits, labels)
    log = logits.log_softmax(-1)
    parts = -log[0, 0, 0] - log[1, 0, 3] - 0.1 * (log[0, 1, 4] + log[1, 1, 4])
    torch.testing.assert_close(loss, 3 * parts / 2.2)
    loss.backward()
    assert not logits.grad[:, 2].any() and logits.grad[:, :2].any()
    nothing = MaskClassLoss()(logits, torch.full((2, 3), NO_LABEL))
    assert nothing == 0 and nothing.requires_grad


def test_targets_of_images_with_different_numbers():
    first = (torch.tensor([2, 5]), boxes((0, 3), (3, 9)))
    none = (torch.zeros(0, dtype=torch.long), torch.zeros(0, 8, 12))
    masks, labels = stack_targets([none, first])
    assert labels.tolist() == [[NO_LABEL] * 2, [2, 5]]
    assert not masks[0].any() and torch.equal(masks[1], first[1])
    masks, labels = stack_targets([none])
    assert masks.shape == (1, 1, 8, 12) and labels.tolist() == [[NO_LABEL]]


@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float64])
def test_precision(dtype):
    logits, labels = torch.randn(1, 4, 3).to(dtype), torch.tensor([[0, 1, 2, 2]])
    loss = MaskClassLoss()(logits, labels)
    assert loss.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
