"""CLIP with a ConvNeXt: dense reading at any size, stages, what trains, heads on it."""

from __future__ import annotations

import copy

import pytest
import torch
from convnext import CONVNEXT
from mmseg.registry import MODELS
from toys import RECOMPUTES

from infoclip_mmseg.models.backbones.build import build_clip

WORDS = ['wall', 'sky', 'tree', 'cat']


def build(**changes):
    torch.manual_seed(0)
    options = dict(model_name=copy.deepcopy(CONVNEXT), finetune='trunk')
    return MODELS.build(dict(type='CLIPDualEncoder', **{**options, **changes})).eval()


def test_sizes_are_those_of_the_built_tower():
    encoder = build()
    assert encoder.patch_size == (32, 32) and encoder.embed_dim == 32
    assert encoder.image_width == (8, 16, 32, 64) and encoder.has_stages
    assert build(out_blocks=(1, 3)).image_width == (16, 64)
    for stem, stride in ((1, 8), (2, 32)):  # behind a stem of stride 2 the first stage halves, too
        config = copy.deepcopy(CONVNEXT)
        config['vision_cfg']['convnext']['stem_stride'] = stem
        assert build(model_name=config).patch_size == (stride, stride)


@torch.no_grad()
@pytest.mark.parametrize('size', [(128, 128), (96, 160), (32, 64)])
@pytest.mark.parametrize('proj', ['mlp', 'linear'])
def test_pooled_embedding_is_open_clips_at_any_size(size, proj):
    config = copy.deepcopy(CONVNEXT)
    config['vision_cfg']['timm_proj'] = proj
    encoder = build(model_name=config)
    images = torch.randn(2, 3, *size)
    features = encoder.encode_image(images)
    expected = encoder.clip.visual(images)
    torch.testing.assert_close(encoder.encode_pooled(images), expected)
    torch.testing.assert_close(features.cls, expected)
    height, width = (side // 32 for side in size)
    assert features.dense.shape == (2, 32, height, width)
    strides = [(8 * height, 8 * width), (4 * height, 4 * width), (2 * height, 2 * width)]
    assert [b.shape[-2:] for b in features.blocks] == [*strides, (height, width)]
    assert [b.shape[1] for b in features.blocks] == [8, 16, 32, 64]
    if (height, width) == (1, 2):  # of one position the dense embedding is the pooled one
        left = encoder.encode_image(images[..., :32])
        torch.testing.assert_close(left.dense[..., 0, 0], left.cls)


@torch.no_grad()
def test_each_position_is_projected_by_itself():
    encoder = build()
    features = encoder.encode_image(torch.randn(2, 3, 96, 128))
    place = features.blocks[-1][:, :, 1, 2]
    torch.testing.assert_close(encoder.project(place), features.dense[:, :, 1, 2])
    assert features.encoder is encoder
    assert encoder.logit_scale == encoder.clip.logit_scale.exp()


def test_what_trains():
    names = [name for name, _ in build_clip(CONVNEXT).named_parameters()]
    trunk = [n for n in names if n.startswith(('visual.trunk.stem', 'visual.trunk.stages'))]
    kept = {'visual.trunk.head.norm.weight', 'visual.trunk.head.norm.bias', 'logit_scale'}
    kept |= {n for n in names if n.startswith('visual.head.') or not n.startswith('visual.')}
    assert set(trunk) == set(names) - kept
    encoder = build()
    assert encoder.trainable_names == trunk
    trained = [n for n, p in encoder.clip.named_parameters() if p.requires_grad]
    assert trained == trunk
    assert set(build(finetune='full').trainable_names) == set(names) - {'logit_scale'}
    assert build(finetune='frozen').trainable_names == []
    for policy in ('attention', 'image_attention'):
        with pytest.raises(ValueError, match='trains nothing of this image tower .*trunk'):
            build(finetune=policy)


def test_a_vit_has_no_trunk(toy):
    with pytest.raises(ValueError, match='trains nothing of this image tower .*attention'):
        toy(backbone=dict(finetune='trunk'))
    with pytest.raises(TypeError, match='only the features of a ConvNeXt'):
        toy().backbone.project(torch.zeros(1, 128))


def test_recomputed_activations_have_the_same_gradients():
    gradients = []
    images = torch.randn(2, 3, 96, 128)
    for with_cp in RECOMPUTES:
        encoder = build(with_cp=with_cp).train()
        encoder.encode_image(images).dense.square().sum().backward()
        gradients.append([p.grad for p in encoder.parameters() if p.requires_grad])
    for plain, *recomputed in zip(*gradients):
        for gradient in recomputed:
            torch.testing.assert_close(gradient, plain)


def test_wrong_use_is_refused():
    with pytest.raises(ValueError, match="one dense reading, got dense_mode='maskclip'"):
        build(dense_mode='maskclip')
    with pytest.raises(ValueError, match=r'out_blocks must lie in 0\.\.3'):
        build(out_blocks=(4,))
    with pytest.raises(ValueError, match='multiples of 32 x 32 pixels, got 40 x 64'):
        build().encode_image(torch.zeros(1, 3, 40, 64))
    config = copy.deepcopy(CONVNEXT)
    config['vision_cfg'] = dict(timm_model_name='resnet10t', timm_proj='linear', image_size=64)
    with pytest.raises(ValueError, match="or timm's ConvNeXt, got TimmModel around ResNet"):
        build(model_name=config)


def test_names_of_open_clip():
    for name, width, dim in (
        ('convnext_base_w_320', (128, 256, 512, 1024), 640),
        ('convnext_large_d_320', (192, 384, 768, 1536), 768),
    ):
        with torch.device('meta'):
            encoder = MODELS.build(dict(type='CLIPDualEncoder', model_name=name, finetune='trunk'))
        assert encoder.image_width == width and encoder.embed_dim == dim
        assert encoder.patch_size == (32, 32)


@pytest.mark.parametrize('head', ['cat', 'zero'])
def test_heads_for_positions_work_on_it(toy, head):
    """CAT-Seg is guided by three stages, as SED is."""
    backbone = dict(model_name=copy.deepcopy(CONVNEXT), finetune='trunk', out_blocks=None)
    model = toy(backbone=backbone, input_size=128, test_cfg=dict(mode='whole'))
    if head == 'zero':
        model.decode_head = MODELS.build(dict(type='ZeroShotHead'))
    model.set_vocabulary(WORDS)
    images = torch.randn(2, 3, 64, 96)
    features = model.extract_feat(images)
    logits = model.decode_head(features, model.embed_vocabulary())
    scale = 4 if head == 'cat' else 1
    assert logits.shape == (2, 4, 4 * scale, 4 * scale)
    if head == 'cat':
        guidance, (middle, fine) = model.decode_head.guide(features)
        assert [m.shape[1] for m in (guidance, middle, fine)] == [64, 32, 16]
        logits.square().mean().backward()
        named = dict(model.backbone.clip.named_parameters())
        reached = {n for n in model.backbone.trainable_names if named[n].grad is not None}
        assert reached == set(model.backbone.trainable_names)
