"""Votes of positions for classes, by hand and against a plain reading of the rule."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from infoclip_mmseg.models.layers.cost_volume import cost_volume
from infoclip_mmseg.models.layers.vocabulary_selection import (
    ClassSelection,
    class_votes,
    label_slots,
    present_classes,
    select_classes,
)

WEIGHTS = (1.0, 0.1, 0.01)


def embeddings(classes: int = 30, prompts: int = 2):
    return torch.randn(2, 8, 3, 4), torch.randn(classes, prompts, 8)


def plain_votes(image, text, weights):
    """The rule as the paper says it, position by position."""
    similarity = cost_volume(image, text).amax(2).flatten(2)
    votes = torch.zeros(similarity.shape[:2])
    for b in range(len(image)):
        for n in range(similarity.shape[2]):
            ranked = similarity[b, :, n].argsort(descending=True)
            for weight, index in zip(weights, ranked):
                votes[b, index] += weight
    return votes, similarity.amax(2)


@pytest.mark.parametrize('weights', [WEIGHTS, (1.0,), (3.0, 2.0)])
@pytest.mark.parametrize('chunk', [1, 24 * 2 * 7, 1 << 22])
def test_votes_are_those_of_the_rule(weights, chunk):
    image, text = embeddings()
    text.requires_grad_()
    votes, similarity = class_votes(image, text, weights, chunk)
    expected = plain_votes(image, text.detach(), weights)
    torch.testing.assert_close(votes, expected[0])
    torch.testing.assert_close(similarity, expected[1])
    assert not votes.requires_grad
    assert not torch.equal(votes[0], votes[1])
    assert votes.sum(1).tolist() == pytest.approx([12 * sum(weights)] * 2)


def test_fewer_classes_than_weights():
    image, text = embeddings(classes=2, prompts=1)
    votes, _ = class_votes(image, text, WEIGHTS)
    torch.testing.assert_close(votes.sum(1), torch.full((2,), 12 * 1.1))


def test_autocast_changes_no_vote():
    image, text = embeddings()
    expected = class_votes(image, text, WEIGHTS)[0]
    with torch.autocast('cpu', dtype=torch.bfloat16):
        assert torch.equal(class_votes(image, text, WEIGHTS)[0], expected)


def test_order_of_selection():
    """What is put first, then votes, then the highest similarity of classes without any."""
    text = torch.eye(8)[:, None]
    # Positions that show class 5, 5 and 2; class 7 is a little like them, class 6 less.
    image = 2 * F.one_hot(torch.tensor([5, 5, 2]), 8).float()
    image[:, 7], image[:, 6] = 0.2, 0.1
    image = image.T.reshape(1, 8, 1, 3)
    expected = [[5], [2, 5], [2, 5, 7], [2, 5, 6, 7]]
    for k, classes in enumerate(expected, start=1):
        assert select_classes(image, text, k, (1.0,)).tolist() == [classes]
    first = torch.zeros(1, 8, dtype=torch.bool)
    first[0, [0, 6]] = True
    assert select_classes(image, text, 1, (1.0,), first).tolist() == [[6]]
    assert select_classes(image, text, 2, (1.0,), first).tolist() == [[0, 6]]
    assert select_classes(image, text, 3, (1.0,), first).tolist() == [[0, 5, 6]]


def test_a_large_vocabulary_is_looked_at_in_parts():
    words = 100_000
    image = torch.randn(2, 16, 24, 24)
    text = F.normalize(torch.randn(words, 1, 16), dim=-1)
    text[77_777, 0] = image[0, :, 3, 3]
    largest = 0

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            nonlocal largest
            out = function(*args, **(kwargs or {}))
            for x in out if isinstance(out, (tuple, list)) else [out]:
                largest = max(largest, x.numel() if isinstance(x, torch.Tensor) else 0)
            return out

    with Watch():
        classes = select_classes(image, text, 32, WEIGHTS)
    assert classes.shape == (2, 32) and (classes.diff(dim=1) > 0).all()
    assert 77_777 in classes[0].tolist()
    assert largest <= 1 << 22 < words * 2 * 24 * 24


def test_classes_of_label_maps():
    labels = torch.tensor([[[0, 3, 255], [3, 3, -1]], [[255, 255, 9], [7, 255, 255]]])
    present = present_classes(labels, 8, 255)
    assert [row.nonzero().flatten().tolist() for row in present] == [[0, 3], [7]]
    # The ignored value may be a number that a class could have.
    assert present_classes(labels, 8, 3)[0].nonzero().flatten().tolist() == [0]


def test_slots_of_labels():
    labels = torch.tensor([[[0, 3, 255], [3, 5, -1]], [[255, 7, 9], [7, 2, 3]]])
    classes = torch.tensor([[0, 1, 3], [2, 6, 7]])
    slots = label_slots(labels, classes, 8, 255)
    assert slots.tolist() == [[[0, 2, -1], [2, -1, -1]], [[-1, 2, -1], [2, 0, -1]]]
    assert label_slots(labels, classes, 8, 3)[0].tolist() == [[0, -1, -1], [-1, -1, -1]]


@pytest.mark.parametrize(
    'wrong, match',
    [
        (dict(num_decoded=-1), 'got -1 and 0'),
        (dict(vote_weights=()), 'positive weight'),
        (dict(vote_weights=(1, 0)), 'positive weight'),
        (dict(undecoded='ignored'), "got 'ignored'"),
    ],
)
def test_wrong_values_are_refused(wrong, match):
    with pytest.raises(ValueError, match=match):
        ClassSelection(**wrong).check()
