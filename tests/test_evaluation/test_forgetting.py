"""The forgetting check: agreement, drift and IoU of a tuned beside an untouched CLIP."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from PIL import Image

from infoclip_mmseg.evaluation.forgetting import (
    MEANINGS,
    ForgettingCheck,
    describe,
    draw_forgetting,
    label_by_cosine,
)
from infoclip_mmseg.models.text.prompts import build_prompts

WORDS = build_prompts(['wall', 'sky', 'tree', 'cat', 'red car'])
CLASSES = build_prompts(['wall', 'sky', 'tree', 'sofa'])
TRAINED = [True, True, False, False]


@pytest.fixture
def encoders(toy):
    """An encoder, and the same with other trained weights."""
    untouched = toy().backbone.eval()
    tuned = copy.deepcopy(untouched)
    with torch.no_grad():
        for parameter in tuned.parameters():
            parameter.add_(0.3 * parameter.std(correction=0) * torch.randn_like(parameter))
    return tuned.eval(), untouched


def labels_of(encoder, images: torch.Tensor) -> list[torch.Tensor]:
    """What an encoder alone says of images, at their own size."""
    dense = encoder.encode_image(images).dense
    text = encoder.embed_prompts(CLASSES).mean(1)
    cosines = torch.nn.functional.normalize(dense, dim=1)
    maps = torch.einsum('bchw,tc->bthw', cosines, text)
    maps = torch.nn.functional.interpolate(maps, images.shape[-2:], mode='bilinear')
    return list(maps.argmax(1))


@torch.no_grad()
def test_untouched_clip_has_forgotten_nothing(encoders):
    _, untouched = encoders
    images = torch.randn(2, 3, 48, 64)
    check = ForgettingCheck(untouched, untouched, WORDS, CLASSES, TRAINED)
    check.update(images, labels_of(untouched, images))
    figures = check.figures()
    assert figures['agreement'] == 100
    assert abs(figures['image_drift']) < 1e-6 and abs(figures['text_drift']) < 1e-6
    for name in ('trained_mIoU', 'other_mIoU'):
        if name in figures:
            assert figures[name] == figures[f'{name}_untouched'] == 100


@torch.no_grad()
def test_figures_are_those_of_all_images_together(encoders):
    tuned, untouched = encoders
    images = torch.randn(3, 3, 48, 64)
    labels = labels_of(untouched, images)
    labels[0][:8] = 255
    whole, parts = (ForgettingCheck(*encoders, WORDS, CLASSES, TRAINED) for _ in range(2))
    whole.update(images, labels)
    for index in range(3):
        parts.update(images[index : index + 1], labels[index : index + 1])
    assert whole.images == parts.images == 3
    assert whole.figures() == pytest.approx(parts.figures(), rel=1e-6)

    figures = whole.figures()
    assert figures.keys() <= MEANINGS.keys()
    dense = [e.encode_image(images).dense for e in encoders]
    text = [e.embed_prompts(WORDS).mean(1) for e in encoders]
    first, second = (
        torch.einsum('bchw,tc->bthw', torch.nn.functional.normalize(d, dim=1), t).argmax(1)
        for d, t in zip(dense, text)
    )
    assert figures['agreement'] == pytest.approx(100 * (first == second).float().mean().item())
    drift = 1 - torch.cosine_similarity(*dense, dim=1).mean()
    assert figures['image_drift'] == pytest.approx(drift.item(), rel=1e-4)
    assert figures['text_drift'] == pytest.approx(
        1 - torch.cosine_similarity(*text, dim=1).mean().item(), rel=1e-3
    )
    truth, predicted = torch.stack(labels), torch.stack(labels_of(tuned, images))
    counted = truth != 255
    iou = []
    for index in range(4):
        a, b = (truth == index) & counted, (predicted == index) & counted
        iou.append(float((a & b).sum()) / max(1, int((a | b).sum())) if (a | b).any() else np.nan)
    for name, chosen in (('trained', iou[:2]), ('other', iou[2:])):
        if np.isfinite(chosen).any():
            assert figures[f'{name}_mIoU'] == pytest.approx(100 * np.nanmean(chosen))


@torch.no_grad()
def test_without_labels(encoders):
    check = ForgettingCheck(*encoders, WORDS)
    check.update(torch.randn(1, 3, 48, 48))
    figures = check.figures()
    assert figures.keys() == {'agreement', 'image_drift', 'text_drift'}
    assert 0 <= figures['agreement'] < 100 and figures['image_drift'] > 0
    text = describe(figures, 5, 1)
    assert 'on 5 words' in text and 'of 1 images' in text and 'mIoU' not in text


def test_labels_are_the_argmax_of_enlarged_cosines():
    cosines = torch.rand(70, 5, 7) * 2 - 1
    labels = label_by_cosine(cosines, (20, 30))
    enlarged = torch.nn.functional.interpolate(cosines[None], (20, 30), mode='bilinear')[0]
    assert (labels == enlarged.argmax(0)).float().mean() > 0.999


@pytest.mark.parametrize('labelled', [True, False])
def test_the_curve(tmp_path, labelled):
    extra = dict(trained_mIoU=70.0, trained_mIoU_untouched=60.0) if labelled else {}
    rows = [
        dict(iteration=i, agreement=100.0 - i, image_drift=i / 100, text_drift=0.0, **extra)
        for i in range(3)
    ]
    draw_forgetting(rows, tmp_path / 'curve.png')
    pixels = np.array(Image.open(tmp_path / 'curve.png').convert('RGB'))
    assert pixels.shape[1] > (1200 if labelled else 800) and len(np.unique(pixels)) > 20
