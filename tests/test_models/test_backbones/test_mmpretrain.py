"""Weights exchanged with mmpretrain's CLIP give equal outputs; its backbones can guide CAT-Seg."""

from __future__ import annotations

import copy
import importlib
import runpy
import sys
from pathlib import Path

import open_clip
import pytest
import torch
from mmengine.registry import init_default_scope
from mmpretrain.registry import MODELS as PRETRAIN
from mmpretrain.registry import TOKENIZER
from mmseg.registry import MODELS

from infoclip_mmseg.models.backbones.layouts import from_mmpretrain, to_mmpretrain

CLIP = dict(
    embed_dim=32,
    quick_gelu=True,
    vision_cfg=dict(image_size=32, layers=3, width=64, head_width=32, patch_size=8),
    text_cfg=dict(context_length=77, vocab_size=49408, width=64, heads=2, layers=2),
)
TOOL = Path(__file__).resolve().parents[3] / 'tools/export_clip.py'


class StubTokenizer:
    """In place of the Hugging Face tokenizer, which would be downloaded."""

    def get_vocab(self) -> dict:
        return {}


def zero_shot_class() -> type:
    """mmpretrain's CLIP, which it hides behind a placeholder where `transformers` is missing."""
    importlib.import_module('mmpretrain.models')
    if not isinstance(PRETRAIN.get('CLIPZeroShot'), type):
        for name in ('CLIP', 'CLIPZeroShot'):
            PRETRAIN._module_dict.pop(name)
    return importlib.import_module('mmpretrain.models.multimodal.clip.clip').CLIPZeroShot


@pytest.fixture
def theirs():
    """mmpretrain's CLIP of the size of ``CLIP``, random weights."""
    kind = zero_shot_class()
    importlib.import_module('mmpretrain.models.multimodal.clip.clip_transformer')
    TOKENIZER.register_module(name='StubTokenizer', module=StubTokenizer, force=True)
    init_default_scope('mmpretrain')
    arch = dict(embed_dims=64, num_layers=3, num_heads=2, feedforward_channels=256)
    model = kind(
        vision_backbone=dict(
            type='VisionTransformer',
            arch=arch,
            img_size=32,
            patch_size=8,
            pre_norm=True,
            norm_cfg=dict(type='LN', eps=1e-5),
            layer_cfgs=dict(act_cfg=dict(type='QuickGELU')),
        ),
        projection=dict(type='CLIPProjection', in_channels=64, out_channels=32),
        text_backbone=dict(type='CLIPTransformer', width=64, layers=2, heads=2, attn_mask=True),
        tokenizer=dict(type='StubTokenizer'),
        vocab_size=49408,
        transformer_width=64,
        proj_dim=32,
        text_prototype=['cat'],
    )
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    init_default_scope('mmseg')
    return model.eval()


def encoder(**changes):
    return MODELS.build(dict(type='CLIPDualEncoder', model_name=CLIP, **changes)).eval()


def assert_equal_outputs(ours, theirs) -> None:
    images = torch.randn(2, 3, 32, 32)
    tokens = open_clip.SimpleTokenizer(context_length=77)(['a cat', 'a photo of two dogs'])
    with torch.no_grad():
        expected = theirs.extract_image_feat(images), theirs.extract_text_feat(tokens)
        got = ours.encode_pooled(images), ours.encode_text(tokens)
    for own, other in zip(got, expected):
        torch.testing.assert_close(own, other, rtol=1e-4, atol=1e-5)


def test_mmpretrain_file_is_a_pretrained_clip(theirs, tmp_path):
    torch.save({'state_dict': theirs.state_dict()}, tmp_path / 'clip.pth')
    ours = encoder(pretrained=str(tmp_path / 'clip.pth'))
    ours.init_weights()
    assert_equal_outputs(ours, theirs)


def test_a_trained_clip_goes_to_mmpretrain(theirs, tmp_path, monkeypatch, capsys):
    torch.manual_seed(1)
    ours = encoder()
    weights = {f'backbone.clip.{key}': value for key, value in ours.clip.state_dict().items()}
    torch.save({'state_dict': {**weights, 'decode_head.x': torch.zeros(1)}}, tmp_path / 'a.pth')
    for layout in ('mmpretrain', 'open_clip'):
        command = [str(TOOL), str(tmp_path / 'a.pth'), str(tmp_path / f'{layout}.pth')]
        monkeypatch.setattr(sys, 'argv', [*command, '--layout', layout])
        runpy.run_path(str(TOOL), run_name='__main__')
    state = torch.load(tmp_path / 'mmpretrain.pth')['state_dict']
    assert theirs.load_state_dict(state, strict=True)
    assert_equal_outputs(ours, theirs)
    plain = open_clip.CLIP(**copy.deepcopy(CLIP))
    plain.load_state_dict(torch.load(tmp_path / 'open_clip.pth')['state_dict'], strict=True)
    images = torch.randn(1, 3, 32, 32)
    torch.testing.assert_close(plain.eval().encode_image(images), ours.encode_pooled(images))


def test_the_layouts_are_inverse_of_each_other():
    state = open_clip.CLIP(**copy.deepcopy(CLIP)).state_dict()
    back = from_mmpretrain(to_mmpretrain(state))
    assert back.keys() == state.keys()
    assert all(torch.equal(back[key], state[key]) for key in state)


def test_gelu_is_refused(theirs, tmp_path):
    torch.save({'state_dict': theirs.state_dict()}, tmp_path / 'clip.pth')
    ours = MODELS.build(
        dict(
            type='CLIPDualEncoder',
            model_name=dict(CLIP, quick_gelu=False),
            pretrained=str(tmp_path / 'clip.pth'),
        )
    )
    with pytest.raises(ValueError, match='mmpretrain CLIP .* QuickGELU'):
        ours.init_weights()


def test_a_file_without_clip_is_one_error_line(tmp_path, monkeypatch, capsys):
    torch.save({'state_dict': {'backbone.conv.weight': torch.zeros(1)}}, tmp_path / 'a.pth')
    monkeypatch.setattr(sys, 'argv', [str(TOOL), str(tmp_path / 'a.pth'), str(tmp_path / 'b.pth')])
    with pytest.raises(SystemExit) as stop:
        runpy.run_path(str(TOOL), run_name='__main__')
    assert stop.value.code == 2
    assert 'no weights at backbone.clip.*' in capsys.readouterr().err
    assert not (tmp_path / 'b.pth').exists()


def test_a_backbone_of_mmpretrain_guides_cat_seg(toy):
    importlib.import_module('mmpretrain.models')
    backbone = dict(
        type='mmpretrain.ConvNeXt',
        arch=dict(depths=[1, 1, 1, 1], channels=[8, 16, 32, 64]),
        out_indices=[0, 1, 2],
        gap_before_final_norm=False,
    )
    model = toy(
        guidance=dict(type='AppearanceGuidance', backbone=backbone),
        decode_head=dict(guidance_channels=(32, 16, 8)),
    )
    model.set_vocabulary(['wall', 'sky'])
    assert model.segment(torch.rand(1, 3, 40, 60) * 255, mode='whole').shape == (1, 2, 24, 24)
