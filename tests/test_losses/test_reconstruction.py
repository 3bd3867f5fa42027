"""FiSeR: what it may see, what it must find, and that it can be learnt."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from infoclip_mmseg.losses.reconstruction import FiSeRLoss, drop_one, present_classes

CLASSES, EMBED = 6, 16


def build(**options):
    torch.manual_seed(0)
    return FiSeRLoss(EMBED, num_heads=4, **options)


def test_classes_that_label_maps_hold():
    labels = torch.tensor([[[0, 255], [3, 3]], [[255, 255], [255, 7]]])
    assert present_classes(labels, CLASSES).nonzero().tolist() == [[0, 0], [0, 3]]


def test_a_present_class_is_dropped_each_as_often():
    present = torch.tensor([[0, 1, 0, 1, 1, 0]] * 3000 + [[0] * 6], dtype=torch.bool)
    dropped = drop_one(present)
    assert dropped[-1] == 0
    counts = torch.bincount(dropped[:-1], minlength=CLASSES)
    assert counts[[0, 2, 5]].sum() == 0
    assert (counts[[1, 3, 4]] - 1000).abs().max() < 150


def test_the_loss_is_the_cross_entropy_of_cosines():
    loss = build(loss_weight=2.0)
    image, text = torch.randn(3, EMBED), torch.randn(CLASSES, EMBED)
    present = torch.zeros(3, CLASSES, dtype=torch.bool)
    present[0, [1, 4]] = present[2, 5] = True
    dropped = torch.tensor([4, 0, 5])
    got = loss(image, text, present, dropped)
    parts = []
    for index, rest in ((0, [1]), (2, [])):
        unit, words = F.normalize(image[index], dim=0), F.normalize(text, dim=1)
        token = unit + loss.mask
        context = torch.stack([unit, *(words[c] for c in rest)])[None]
        found, _ = loss.attention(loss.norm(token)[None, None], context, context)
        cosines = F.normalize(token + found[0, 0], dim=0) @ words.T
        parts.append(-(cosines / 0.07).log_softmax(0)[dropped[index]])
    torch.testing.assert_close(got, 2 * torch.stack(parts).mean())


def test_the_dropped_class_is_not_seen():
    """Its text is compared with, but read by nothing; neither is that of absent classes."""
    loss = build()
    image, text = torch.randn(1, EMBED), torch.randn(CLASSES, EMBED)
    left = torch.tensor([[False, True, False, True, False, False]])
    before = loss.logits(image, text, left)
    changed = text.clone()
    changed[4] = torch.randn(EMBED)  # the dropped one, or an absent one
    after = loss.logits(image, changed, left)
    others = [0, 1, 2, 3, 5]
    torch.testing.assert_close(after[:, others], before[:, others])
    changed[3] = torch.randn(EMBED)
    assert not torch.allclose(loss.logits(image, changed, left)[:, others], before[:, others])


def test_an_image_without_classes_counts_nothing():
    loss = build()
    image, text = torch.randn(2, EMBED, requires_grad=True), torch.randn(CLASSES, EMBED)
    present = torch.zeros(2, CLASSES, dtype=torch.bool)
    assert loss(image, text, present) == 0
    present[0, 2] = True
    value = loss(image, text, present)
    torch.testing.assert_close(value, loss(image[:1], text, present[:1]))
    value.backward()
    assert image.grad[0].any() and not image.grad[1].any()


def test_it_learns_which_class_is_missing():
    """Images are the sums of their classes: what the rest of the text leaves over."""
    loss = build()
    text = F.normalize(torch.randn(CLASSES, EMBED), dim=1)
    optimizer = torch.optim.Adam(loss.parameters(), lr=1e-2)
    values = []
    for _ in range(150):
        present = torch.rand(64, CLASSES) < 0.4
        value = loss(present.float() @ text, text, present)
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        values.append(value.item())
    assert sum(values[-10:]) < 0.5 * sum(values[:10])
