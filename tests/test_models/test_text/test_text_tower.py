"""The packed text tower against open_clip's own on all 77 tokens: values, gradients, batches."""

from __future__ import annotations

import copy

import open_clip
import pytest
import torch
from torch import nn
from toys import RECOMPUTES

from infoclip_mmseg.models import CLIPDualEncoder, build_prompts
from infoclip_mmseg.models.backbones.attention import SplitAttention
from infoclip_mmseg.models.text.packing import end_positions, pack_prompts

WORDS = ['cat', 'a very long name of a red car', 'dog', 'cat', 'zebra crossing', 'ox']


def plain_tower(encoder: CLIPDualEncoder) -> nn.Module:
    """open_clip's model with the encoder's weights, which runs every column of every prompt."""
    config = copy.deepcopy(encoder.model_name)
    custom = config.pop('custom_text', False)
    clip = (open_clip.CustomTextCLIP if custom else open_clip.CLIP)(**config)
    state = encoder.clip.state_dict()
    for name, module in encoder.clip.named_modules():
        if isinstance(module, SplitAttention):
            parts = [state.pop(f'{name}.{x}_proj_weight') for x in 'qkv']
            state[f'{name}.in_proj_weight'] = torch.cat(parts)
    clip.load_state_dict(state)
    return clip.train(encoder.training)


def build(toy_cfg, text: dict | None = None, **kwargs) -> CLIPDualEncoder:
    model = toy_cfg()['backbone']['model_name']
    if text is not None:
        model = dict(model, custom_text=True, text_cfg={**model['text_cfg'], **text})
    torch.manual_seed(1)
    encoder = CLIPDualEncoder(model, finetune='full', **kwargs)
    for parameter in encoder.clip.parameters():  # no zeros or ones that would hide a mistake
        parameter.data += 0.02 * torch.randn_like(parameter)
    return encoder


TOWERS = {
    'plain': None,
    'argmax': dict(),
    'eos': dict(pool_type='eos', eos_id=49407),
    'first': dict(pool_type='first'),
    'last': dict(pool_type='last'),
    'no mask': dict(no_causal_mask=True),
    'no mask, last': dict(no_causal_mask=True, pool_type='last'),
    'no projection': dict(proj_type='none'),
    'biased projection': dict(proj_bias=True),
}


@pytest.mark.parametrize('with_cp', RECOMPUTES)
@pytest.mark.parametrize('tower', TOWERS)
def test_values_and_gradients_equal_the_plain_tower(toy_cfg, tower, with_cp):
    encoder = build(toy_cfg, TOWERS[tower], with_cp=with_cp).train()
    plain = plain_tower(encoder)
    tokens = encoder.tokenizer(list(build_prompts(WORDS).texts))
    actual, expected = encoder.encode_text(tokens), plain.encode_text(tokens)
    torch.testing.assert_close(actual, expected, rtol=1e-5, atol=1e-5)
    weights = torch.randn_like(expected)
    (actual * weights).sum().backward()
    (expected * weights).sum().backward()
    own = dict(encoder.clip.named_parameters())
    for name, parameter in plain.named_parameters():
        if parameter.grad is None:
            continue
        if name.endswith('in_proj_weight'):
            stem = name.removesuffix('in_proj_weight')
            grad = torch.cat([own[f'{stem}{x}_proj_weight'].grad for x in 'qkv'])
        else:
            grad = own[name].grad
        scale = parameter.grad.abs().max().clamp(min=1)
        torch.testing.assert_close(grad / scale, parameter.grad / scale, rtol=1e-5, atol=1e-5)


def test_golden_dtype_autocast(toy_cfg):
    if not hasattr(torch, 'get_autocast_dtype'):
        pytest.skip("torch 2.1's own attention takes no float mask under autocast")
    encoder = build(toy_cfg).eval()
    plain = plain_tower(encoder)
    tokens = encoder.tokenizer(list(build_prompts(WORDS).texts))
    with torch.no_grad(), torch.autocast('cpu', dtype=torch.bfloat16):
        actual, expected = encoder.encode_text(tokens), plain.encode_text(tokens)
    error = (actual.float() - expected.float()).abs().max() / expected.float().std()
    assert error < 0.05


@pytest.mark.parametrize('words', [['cat'], ['cat', 'cat'], ['cat', 'catfish'], WORDS])
def test_any_number_of_prompts(toy_cfg, words):
    encoder = build(toy_cfg).eval()
    tokens = encoder.tokenizer(words)
    with torch.no_grad():
        expected = plain_tower(encoder).encode_text(tokens)
        torch.testing.assert_close(encoder.encode_text(tokens), expected, rtol=1e-5, atol=1e-5)


def test_what_is_packed(toy_cfg):
    encoder = build(toy_cfg)
    tokens = encoder.tokenizer(list(build_prompts(WORDS).texts))
    packed = pack_prompts(tokens, end_positions(encoder.text_tower, tokens), causal=True)
    assert packed.layout.prefix == 5  # the start token and 'a photo of a'
    lengths = [len(row[row != 0]) - 5 for row in tokens]
    assert sum(prompts for prompts, _ in packed.layout.groups) == len(set(WORDS))
    assert len(packed.tokens) == 5 + sum(lengths) - lengths[0]
    assert packed.order[0] == packed.order[3]
    rows = []
    encoder.text_tower.transformer.resblocks[0].register_forward_pre_hook(
        lambda module, args: rows.append(len(args[0]))
    )
    encoder.encode_text(tokens)
    assert rows == [len(packed.tokens)]
