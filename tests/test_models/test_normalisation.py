"""Mean and standard deviation follow from the weights, in the segmentor and in a teacher."""

from __future__ import annotations

import open_clip
import pytest
import torch
from mmengine.config import Config
from mmseg.registry import MODELS

from infoclip_mmseg.models.normalisation import as_trained, normalisation_of_weights

CLIP_MEAN = [122.7709383, 116.7460125, 104.09373615]
CLIP_STD = [68.5005327, 66.6321579, 70.32316305]
HALF = [127.5] * 3
LAION = dict(model_name='ViT-L-14', pretrained='laion2b_s32b_b82k')  # trained with 0.5 and 0.5


@pytest.fixture
def small(monkeypatch, toy_cfg):
    """The model of ``LAION`` in a toy size, with its own tags."""
    config = {**toy_cfg()['backbone']['model_name'], 'quick_gelu': False}
    monkeypatch.setattr(open_clip, 'get_model_config', lambda name: dict(config))


def test_every_tag_has_its_own():
    for name, tag in open_clip.list_pretrained():
        config = open_clip.get_pretrained_cfg(name, tag)
        got = normalisation_of_weights(name, tag)
        assert got.mean == pytest.approx([255 * v for v in config['mean']])
        assert got.std == pytest.approx([255 * v for v in config['std']])
        assert got.rgb


@pytest.mark.parametrize('pretrained', [None, 'file.pt', 'data/clip/weights.safetensors'])
@pytest.mark.parametrize('model_name', ['ViT-L-14', dict(embed_dim=8)], ids=['name', 'dict'])
def test_a_file_keeps_the_configs_values(model_name, pretrained):
    encoder = dict(model_name=model_name, pretrained=pretrained)
    stated = dict(mean=(1.0, 2, 3), std=(4.0, 5, 6))
    assert as_trained(stated, encoder, 'model') == stated
    assert as_trained({}, encoder, 'model')['mean'] == pytest.approx(CLIP_MEAN)
    assert as_trained(dict(mean=None), encoder, 'model')['std'] == pytest.approx(CLIP_STD)


def test_segmentor_and_exports_take_those_of_the_tag(small, toy_cfg):
    stated = {'mean': None, 'std': None}
    model = MODELS.build(toy_cfg(backbone=LAION, data_preprocessor=stated))
    preprocessor = model.data_preprocessor
    assert preprocessor.mean.flatten().tolist() == preprocessor.std.flatten().tolist() == HALF
    assert model.segment(torch.zeros(1, 3, 48, 48), ['a', 'b'], mode='whole').isfinite().all()


def test_mmsegs_pretrained_counts_too(small, toy_cfg):
    config = toy_cfg(backbone=dict(model_name='ViT-L-14', pretrained='openai'))
    del config['data_preprocessor']['mean'], config['data_preprocessor']['std']
    model = MODELS.build({**config, 'pretrained': LAION['pretrained']})
    assert model.data_preprocessor.mean.flatten().tolist() == HALF


def test_other_values_are_refused_naming_both(small, toy_cfg):
    with pytest.raises(ValueError, match='laion2b_s32b_b82k') as error:
        MODELS.build(toy_cfg(backbone=LAION))
    for part in ('model.data_preprocessor', '122.7709', '127.5', 'take both out'):
        assert part in str(error.value)


def test_rounded_values_are_the_same(small):
    stated = dict(mean=[122.77, 116.746, 104.094], std=[68.5, 66.632, 70.323])
    encoder = dict(model_name='ViT-B-16-quickgelu', pretrained='openai')
    assert as_trained(stated, encoder, 'model') == {k: tuple(v) for k, v in stated.items()}
    with pytest.raises(ValueError, match='openai'):
        as_trained(dict(mean=HALF), encoder, 'model')


def test_teacher_of_another_student(small):
    from infoclip_mmseg.models.distillation.foreign import Distillation

    options = dict(dense=dict(module='x'), loss_distill=[dict(type='KLDistillationLoss')])
    assert list(Distillation(LAION, **options).normalisation.std) == HALF
    with pytest.raises(ValueError, match=r'model\.distillation states'):
        Distillation(LAION, mean=CLIP_MEAN, std=CLIP_STD, **options)


@pytest.mark.parametrize('name', ['infoclip_vitl14_coco-stuff', 'clearclip/clearclip_vitb16_voc20'])
def test_configs_leave_them_to_the_tag(name):
    preprocessor = Config.fromfile(f'configs/{name}.py').model.data_preprocessor
    assert 'mean' not in preprocessor and 'std' not in preprocessor
