"""CATSegHead guided by another mmseg backbone, and images in another normalisation."""

from __future__ import annotations

import pytest
import torch
from mmseg.registry import MODELS

from infoclip_mmseg.models.normalisation import (
    CLIP_MEAN,
    CLIP_STD,
    IMAGENET_MEAN,
    IMAGENET_STD,
    Normalisation,
    normalisation_of,
    renormalise,
)

RESNET = dict(
    type='ResNet',
    depth=18,
    stem_channels=8,
    base_channels=8,
    num_stages=3,
    strides=(1, 2, 2),
    dilations=(1, 1, 1),
    out_indices=(0, 1, 2),
    norm_cfg=dict(type='BN', requires_grad=True),
    norm_eval=True,
)
SWIN = dict(
    type='SwinTransformer',
    embed_dims=16,
    depths=(1, 1, 1),
    num_heads=(1, 2, 4),
    window_size=3,
    out_indices=(0, 1, 2),
)
BACKBONES = {'ResNet': (RESNET, (32, 16, 8)), 'Swin': (SWIN, (64, 32, 16))}


def guided(toy, name: str = 'ResNet', **changes):
    backbone, channels = BACKBONES[name]
    return toy(
        guidance=dict(type='AppearanceGuidance', backbone=backbone),
        decode_head=dict(guidance_channels=channels, **changes),
    )


@pytest.mark.parametrize('name', BACKBONES)
def test_a_guided_head_predicts_and_trains_its_backbone(toy, name):
    model = guided(toy, name)
    model.set_vocabulary(['wall', 'sky', 'tree'])
    assert model.segment(torch.rand(2, 3, 40, 60) * 255, mode='whole').shape == (2, 3, 24, 24)
    keys = model.state_dict().keys()
    assert any(key.startswith('guidance.backbone.') for key in keys)
    assert not any('decode_head.upsample' in key for key in keys)
    model.train()
    features = model.extract_feat(torch.randn(2, 3, 48, 48))
    text = model.backbone.embed_prompts(model.prompts)
    losses = model.decode_head.loss(features, text, torch.randint(0, 3, (2, 48, 48)))
    sum(losses.values()).backward()
    without = [n for n, p in model.guidance.named_parameters() if p.grad is None]
    assert not without


def test_image_b_guides_its_own_classes(toy):
    model = guided(toy).eval()
    model.set_vocabulary(['wall', 'sky', 'tree'])
    images = torch.rand(3, 3, 48, 48) * 255
    together = model.segment(images, mode='whole')
    alone = torch.cat([model.segment(image[None], mode='whole') for image in images])
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-4)


def test_the_guidance_decides_not_the_block_maps(toy):
    model = guided(toy).eval()
    model.set_vocabulary(['wall', 'sky'])
    inputs = torch.randn(1, 3, 48, 48)
    before = model.encode_decode(inputs)
    for parameter in model.guidance.parameters():
        parameter.data.mul_(1.5)
    assert not torch.allclose(model.encode_decode(inputs), before, atol=1e-4)


def test_the_backbone_sees_images_in_its_own_normalisation(toy, monkeypatch):
    model = guided(toy).eval()
    seen = []
    monkeypatch.setattr(model.guidance.backbone, 'forward', lambda x: seen.append(x) or (x, x, x))
    pixels = torch.randint(0, 256, (1, 3, 48, 48)).float()
    clip = (pixels - model.data_preprocessor.mean) / model.data_preprocessor.std
    model.extract_feat(clip)
    mean, std = (torch.tensor(v)[:, None, None] for v in (IMAGENET_MEAN, IMAGENET_STD))
    torch.testing.assert_close(seen[0], (pixels - mean) / std, rtol=1e-4, atol=1e-4)


def test_maps_that_do_not_fit_the_grid_are_resized(toy):
    model = guided(toy)
    features = model.extract_feat(torch.randn(1, 3, 48, 48))
    assert [m.shape[-1] for m in features.blocks] == [3, 6, 12]
    coarse, (middle, fine) = model.decode_head.guide(features)
    assert [m.shape[-1] for m in (coarse, middle, fine)] == [6, 12, 24]


def test_four_maps_or_wrong_channels_are_clear_errors(toy):
    four = dict(RESNET, num_stages=4, strides=(1, 2, 2, 2), dilations=(1, 1, 1, 1))
    four['out_indices'] = (0, 1, 2, 3)
    model = toy(
        guidance=dict(type='AppearanceGuidance', backbone=four),
        decode_head=dict(guidance_channels=(32, 16, 8)),
    )
    with pytest.raises(ValueError, match='returned 4 maps.*out_indices'):
        model.extract_feat(torch.randn(1, 3, 48, 48))
    with pytest.raises(ValueError, match='three maps, coarse to fine'):
        toy(decode_head=dict(guidance_channels=(32, 16)))
    wrong = toy(
        guidance=dict(type='AppearanceGuidance', backbone=RESNET),
        decode_head=dict(guidance_channels=(8, 16, 32)),
    )
    wrong.set_vocabulary(['a', 'b'])
    with pytest.raises(ValueError, match='guidance_channels'):
        wrong.encode_decode(torch.randn(1, 3, 48, 48))


@pytest.mark.parametrize('bgr_to_rgb', [True, False])
def test_renormalised_images_are_those_of_the_other_preprocessor(bgr_to_rgb):
    mean, std = [123.0, 117.0, 104.0], [58.0, 57.0, 56.0]
    ours = MODELS.build(dict(type='SegDataPreProcessor', mean=mean, std=std, bgr_to_rgb=bgr_to_rgb))
    clip = MODELS.build(
        dict(type='SegDataPreProcessor', mean=CLIP_MEAN, std=CLIP_STD, bgr_to_rgb=True)
    )
    image = torch.randint(0, 256, (3, 8, 10), dtype=torch.uint8)
    inputs, expected = (p(dict(inputs=[image]))['inputs'] for p in (ours, clip))
    got = renormalise(inputs, normalisation_of(ours), normalisation_of(clip))
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-4)


def test_equal_or_absent_normalisation():
    images = torch.rand(1, 3, 4, 4)
    clip = Normalisation(CLIP_MEAN, CLIP_STD)
    assert renormalise(images, clip, clip) is images
    plain = MODELS.build(dict(type='SegDataPreProcessor'))
    assert normalisation_of(plain) == ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0), False)
