"""Layouts of CLIP weights: packing of attention, and a layout that is added."""

from __future__ import annotations

import copy

import open_clip
import torch
from safetensors.torch import load_file

from infoclip_mmseg.models import CLIPDualEncoder
from infoclip_mmseg.models.backbones.layouts import LAYOUTS, Layout
from infoclip_mmseg.models.backbones.names import pack_qkv, split_qkv


def test_packing_is_the_inverse_of_splitting():
    packed = {
        'a.attn.in_proj_weight': torch.arange(12.0).view(6, 2),
        'a.attn.in_proj_bias': torch.randn(6),
        'b.in_proj_weight': torch.randn(3, 1),
        'out_proj.weight': torch.randn(2, 2),
    }
    split = split_qkv(packed)
    assert split['a.attn.k_proj_weight'].tolist() == [[4.0, 5.0], [6.0, 7.0]]
    assert len(split) == 8 and split['a.attn.in_proj_bias'] is packed['a.attn.in_proj_bias']
    assert split_qkv(split).keys() == split.keys()
    back = pack_qkv(split)
    assert back.keys() == packed.keys()
    assert all(torch.equal(back[key], packed[key]) for key in packed)


def test_the_model_takes_both(toy_cfg, toy_weights):
    state = load_file(str(toy_weights))
    encoders = [CLIPDualEncoder(toy_cfg()['backbone']['model_name']) for _ in range(2)]
    encoders[0].clip.load_state_dict(state)
    encoders[1].clip.load_state_dict(split_qkv(state))
    for key, value in pack_qkv(encoders[0].clip.state_dict()).items():
        assert torch.equal(value, state[key])
    assert all(torch.equal(a, b) for a, b in zip(*(e.parameters() for e in encoders)))


def test_an_entry_is_all_that_a_layout_needs(toy_cfg, tmp_path, monkeypatch):
    def read(state):
        return {key.removeprefix('shouted.').lower(): value for key, value in state.items()}

    def write(state):
        return {'shouted.' + key.upper(): value for key, value in pack_qkv(state).items()}

    layout = Layout(lambda state: 'shouted.LOGIT_SCALE' in state, read, write, quick_gelu=False)
    monkeypatch.setitem(LAYOUTS, 'shouted', layout)
    config = toy_cfg()['backbone']['model_name']
    clip = open_clip.CLIP(**copy.deepcopy(config))
    torch.save(write(clip.state_dict()), tmp_path / 'clip.pth')
    encoder = CLIPDualEncoder(config, pretrained=str(tmp_path / 'clip.pth'))
    encoder.init_weights()
    assert all(
        torch.equal(v, clip.state_dict()[k]) for k, v in pack_qkv(encoder.clip.state_dict()).items()
    )
