"""Readings of the last block: golden numbers, and formulas on open_clip's own modules."""

from __future__ import annotations

from pathlib import Path

import open_clip
import pytest
import torch
from safetensors.torch import load_file

from infoclip_mmseg.models import CLIPDualEncoder
from infoclip_mmseg.models.backbones.dense_modes import ATTENTIONS, DENSE_MODES

DATA = Path(__file__).parents[2] / 'data'
TRAINING_FREE = [*ATTENTIONS, *(f'{name}_residual' for name in ATTENTIONS)]


@pytest.fixture
def toy_clip(toy_cfg):
    return toy_cfg()['backbone']['model_name']


@pytest.fixture
def build(toy_clip, fill_rule):
    """Gives open_clip's toy model with the golden fill in its image tower, and an encoder on it."""

    def build_pair(mode: str) -> tuple[open_clip.CLIP, CLIPDualEncoder]:
        clip = open_clip.CLIP(**toy_clip).eval()
        state = clip.state_dict()
        for key, value in state.items():
            if key.startswith('visual.'):
                state[key] = fill_rule(key, list(value.shape))
        clip.load_state_dict(state)
        encoder = CLIPDualEncoder(toy_clip, dense_mode=mode, finetune='frozen').eval()
        encoder.clip.load_state_dict(state)
        return clip, encoder

    return build_pair


def test_the_modes_that_configs_may_name(toy_clip):
    assert set(DENSE_MODES) == {'catseg', 'declip', *TRAINING_FREE}
    with pytest.raises(ValueError, match="dense_mode must be one of .*'clearclip'.*'dense'"):
        CLIPDualEncoder(toy_clip, dense_mode='dense')


@pytest.mark.parametrize('mode', TRAINING_FREE)
def test_golden_numbers_of_the_published_tower(build, toy_cfg, mode):
    golden = load_file(str(DATA / 'dense_modes.safetensors'))
    preprocessor = toy_cfg()['data_preprocessor']
    mean, std = (torch.tensor(preprocessor[k]).view(3, 1, 1) for k in ('mean', 'std'))
    name, _, residual = mode.partition('_')
    expected = golden[f'dense_{name}_{residual or "noresidual"}']
    _, encoder = build(mode)
    dense = encoder.encode_image((golden['image'] - mean) / std).dense
    assert dense.shape == (2, 32, 4, 4)
    error = (dense.flatten(2).transpose(1, 2) - expected).abs().max()
    assert error < 1e-4 * expected.std()
    others = [key for key in golden if key.startswith('dense_') and golden[key] is not expected]
    assert all((golden[key] - expected).abs().max() > 0.1 * expected.std() for key in others)


@torch.no_grad()
def formula(clip: open_clip.CLIP, images: torch.Tensor, mode: str) -> torch.Tensor:
    """All tokens (B, 1 + N, C) by hand: one head and one image at a time."""
    visual = clip.visual
    patches = visual.conv1(images).flatten(2).transpose(1, 2)
    cls = visual.class_embedding.expand(len(images), 1, -1)
    x = visual.ln_pre(torch.cat([cls, patches], dim=1) + visual.positional_embedding)
    *body, last = visual.transformer.resblocks
    for block in body:
        x = block(x)
    normed, width, heads = last.ln_1(x), x.shape[-1], last.attn.num_heads
    outputs = torch.zeros_like(x)
    for b in range(len(x)):
        packed = normed[b] @ last.attn.in_proj_weight.T + last.attn.in_proj_bias
        for h in range(heads):
            columns = slice(h * width // heads, (h + 1) * width // heads)
            q, k, v = (packed[:, i * width : (i + 1) * width][:, columns] for i in range(3))
            scale = (width // heads) ** 0.5
            weights = {
                'vanilla': (q @ k.T / scale).softmax(-1),
                'maskclip': torch.eye(len(q)),
                'sclip': (q @ q.T / scale).softmax(-1) + (k @ k.T / scale).softmax(-1),
                'clearclip': (q @ q.T / scale).softmax(-1),
            }[mode.partition('_')[0]]
            outputs[b, :, columns] = weights @ v
    outputs = last.attn.out_proj(outputs)
    if mode.endswith('_residual'):
        outputs = x + outputs
        outputs = outputs + last.mlp(last.ln_2(outputs))
    return visual.ln_post(outputs) @ visual.proj


@pytest.mark.parametrize('mode', TRAINING_FREE)
def test_formula_on_the_modules_of_open_clip(build, mode):
    clip, encoder = build(mode)
    images = torch.randn(3, 3, 32, 32)
    expected = formula(clip, images, mode)
    features = encoder.encode_image(images)
    dense = features.dense.flatten(2).transpose(1, 2)
    torch.testing.assert_close(dense, expected[:, 1:], rtol=0, atol=1e-5)
    torch.testing.assert_close(features.cls, expected[:, 0], rtol=0, atol=1e-5)


def test_vanilla_with_its_residual_is_clip_itself(build):
    clip, encoder = build('vanilla_residual')
    images = torch.randn(2, 3, 32, 32)
    features = encoder.encode_image(images)
    torch.testing.assert_close(features.cls, clip.encode_image(images), rtol=0, atol=1e-5)
    torch.testing.assert_close(features.cls, encoder.encode_pooled(images), rtol=0, atol=1e-5)


@pytest.mark.parametrize('mode', TRAINING_FREE)
def test_the_images_of_a_batch_do_not_mix(build, mode):
    _, encoder = build(mode)
    images = torch.randn(3, 3, 32, 48)
    both = encoder.encode_image(images).dense
    alone = torch.cat([encoder.encode_image(image[None]).dense for image in images])
    torch.testing.assert_close(both, alone, rtol=1e-4, atol=1e-5)
