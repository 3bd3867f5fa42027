"""Mask tokens: exactness, one block by hand, what trains, chunks, words that change."""

from __future__ import annotations

import copy
import math

import pytest
import torch
import torch.nn.functional as F
from convnext import CONVNEXT
from mmseg.registry import MODELS
from toys import RECOMPUTES, TOY_CLIP

from infoclip_mmseg.models.layers.mask_tokens import (
    keys_and_values,
    mask_token_block,
    visible_patches,
)

BLOCKS, WIDTH, EMBED = 4, 128, 32


def build(kind: str = 'MaskTokenEncoder', **options):
    torch.manual_seed(0)
    options = {'model_name': copy.deepcopy(TOY_CLIP), **options}
    return MODELS.build(dict(type=kind, **options)).eval()


def images(grid=(3, 5), count: int = 2):
    return torch.randn(count, 3, 8 * grid[0], 8 * grid[1])


def words(count: int = 5):
    return F.normalize(torch.randn(count, EMBED), dim=-1)


def test_the_image_path_is_clips_own_to_the_last_bit():
    ours, clip = build(), build('CLIPDualEncoder', finetune='frozen')
    clip.clip.load_state_dict(ours.clip.state_dict())
    x = images()
    got, expected = ours.encode_image(x), clip.encode_image(x)
    assert torch.equal(got.dense, expected.dense) and torch.equal(got.cls, expected.cls)
    assert all(torch.equal(a, b) for a, b in zip(got.blocks, expected.blocks))
    assert len(got.inputs) == BLOCKS and expected.inputs == ()
    before = [tokens.clone() for tokens in got.inputs]
    ours.encode_masks(got, torch.randn(2, 4, 6, 6), words())
    assert all(torch.equal(a, b) for a, b in zip(got.inputs, before))


@torch.no_grad()
@pytest.mark.parametrize('finetune', ['mask_q', 'image_q', 'both', 'all'])
def test_step_0_is_the_frozen_baseline_exactly(finetune):
    ours, frozen = build(finetune=finetune), build(finetune='frozen', word_blocks=0)
    frozen.clip.load_state_dict(ours.clip.state_dict())
    x, masks = images(), torch.randn(2, 7, 11, 9)
    got = ours.encode_masks(ours.encode_image(x), masks, words())
    assert torch.equal(got, frozen.encode_masks(frozen.encode_image(x), masks))
    for layer in ours.word_attention:
        layer.gate.fill_(0.1)
    assert not torch.allclose(ours.encode_masks(ours.encode_image(x), masks, words()), got)


@torch.no_grad()
def test_queries_start_as_those_of_the_loaded_weights(toy_weights):
    ours = build(pretrained=str(toy_weights))
    ours.init_weights()
    for query, block in zip(ours.mask_queries, ours.clip.visual.transformer.resblocks):
        assert torch.equal(query.weight, block.attn.q_proj_weight)
        assert torch.equal(query.bias, block.attn.in_proj_bias[:WIDTH])


@torch.no_grad()
def test_a_mask_of_everything_is_clips_image_embedding():
    ours = build()
    x = images((4, 6))
    got = ours.encode_masks(ours.encode_image(x), torch.ones(2, 1, 4, 4))
    torch.testing.assert_close(got[:, 0], ours.encode_pooled(x))


def test_what_a_mask_token_sees():
    """Maxima over a grid that does not divide the masks, for finer and for coarser ones."""
    masks = torch.full((1, 3, 4, 6), -1.0)
    masks[0, 0, 3, 5] = 1.0  # the last pixel
    masks[0, 1, 0, 0] = masks[0, 1, 2, 1] = 0.5
    seen = visible_patches(masks, (2, 3))[0]
    assert seen[:, 0].all()
    assert seen[0, 1:].nonzero().flatten().tolist() == [5]
    assert seen[1, 1:].nonzero().flatten().tolist() == [0, 3]
    assert not seen[2, 1:].any()
    coarse = visible_patches(torch.tensor([[[[1.0, -1.0]]]]), (2, 4))[0, 0, 1:]
    assert coarse.tolist() == [True, True, False, False] * 2


@torch.no_grad()
def test_one_block_with_two_masks_by_hand():
    """Head by head and token by token, in float64: softmax over class token and own patches."""
    ours = build().double()
    for parameter in ours.mask_queries.parameters():
        parameter.add_(torch.randn_like(parameter) * 0.1)
    block, heads = ours.clip.visual.transformer.resblocks[1], 2
    block.attn.in_proj_bias.normal_()
    image, tokens = torch.randn(1, 5, WIDTH).double(), torch.randn(1, 2, WIDTH).double()
    visible = torch.tensor([[[1, 1, 0, 0, 1], [1, 0, 0, 0, 0]]], dtype=torch.bool)
    query = ours.mask_queries[1]
    got = mask_token_block(block, tokens, *keys_and_values(block, image), visible, query)

    def norm(x, layer):
        x = x - x.mean(-1, keepdim=True)
        return x / (x.pow(2).mean(-1, keepdim=True) + layer.eps).sqrt() * layer.weight + layer.bias

    bias, side = block.attn.in_proj_bias, WIDTH // heads
    context = norm(image[0], block.ln_1)
    keys = context @ block.attn.k_proj_weight.T + bias[WIDTH : 2 * WIDTH]
    values = context @ block.attn.v_proj_weight.T + bias[2 * WIDTH :]
    for index, patches in enumerate([(0, 1, 4), (0,)]):
        token = tokens[0, index]
        q = query.weight @ norm(token, block.ln_1) + query.bias
        found = torch.zeros(WIDTH).double()
        for head in range(heads):
            part = slice(head * side, (head + 1) * side)
            scores = torch.stack([q[part] @ keys[p][part] for p in patches]) / math.sqrt(side)
            weights = scores.exp() / scores.exp().sum()
            found[part] = sum(w * values[p][part] for w, p in zip(weights, patches))
        out = block.attn.out_proj
        token = token + out.weight @ found + out.bias
        first, last = block.mlp.c_fc, block.mlp.c_proj
        hidden = first.weight @ norm(token, block.ln_2) + first.bias
        hidden = hidden * torch.sigmoid(1.702 * hidden)
        token = token + last.weight @ hidden + last.bias
        torch.testing.assert_close(got[0, index], token)


@torch.no_grad()
def test_masks_do_not_see_each_other_and_chunks_change_nothing():
    """More than a thousand masks, a few at a time; in one image most are empty."""
    few, many = build(chunk=64), build(chunk=2000)
    many.load_state_dict(few.state_dict())
    for model in (few, many):
        for layer in model.word_attention:
            layer.gate.fill_(0.5)
    x, masks, text = images((2, 3)), torch.randn(2, 1030, 4, 5), words()
    masks[1, 3:] = -1  # empty
    features = few.encode_image(x)
    got = few.encode_masks(features, masks, text)
    assert got.shape == (2, 1030, EMBED) and got.isfinite().all()
    torch.testing.assert_close(got, many.encode_masks(features, masks, text))
    torch.testing.assert_close(got[:, 700:702], few.encode_masks(features, masks[:, 700:702], text))
    assert torch.allclose(got[1, 3], got[1, 1029], atol=1e-6)
    assert not torch.allclose(got[1, 3], got[1, 0], atol=1e-3)
    none = few.encode_masks(features, masks[:, :0], text)
    assert none.shape == (2, 0, EMBED)


@torch.no_grad()
def test_words_that_change_between_batches():
    ours = build()
    for layer in ours.word_attention:
        layer.gate.fill_(1.0)
    calls = []
    ours.word_attention[0].key.register_forward_hook(lambda *_: calls.append(1))
    features, masks = ours.encode_image(images()), torch.randn(2, 3, 6, 6)
    first, second = words(), words(7)
    a = ours.encode_masks(features, masks, first)
    b = ours.encode_masks(features, masks, second)
    assert not torch.allclose(a, b) and len(calls) == 2
    assert torch.equal(ours.encode_masks(features, masks, second.clone()), b) and len(calls) == 2
    other = second.clone()
    other[0] = -other[0]  # of the same form, at another place
    c = ours.encode_masks(features, masks, other)
    assert not torch.allclose(c, b) and len(calls) == 3
    ours.word_attention[0].value.weight.mul_(2)  # words that stay, weights that train
    d = ours.encode_masks(features, masks, other)
    assert not torch.allclose(d, c) and len(calls) == 4
    with torch.enable_grad():
        torch.testing.assert_close(ours.encode_masks(features, masks, other), d)


QUERIES = {f'mask_queries.{i}.{kind}' for i in range(BLOCKS) for kind in ('weight', 'bias')}
WORDS = {f'word_attention.0.{n}' for n in ('gate', 'key.weight', 'key.bias')}
WORDS |= {'word_attention.0.value.weight', 'word_attention.0.value.bias'}
ATTENTION = 'clip.visual.transformer.resblocks.{}.attn.q_proj_weight'
SETS = {
    'frozen': set(),
    'mask_q': QUERIES,
    'image_q': {ATTENTION.format(i) for i in range(BLOCKS)},
    'both': QUERIES | {ATTENTION.format(i) for i in range(BLOCKS - 1)},
}


@pytest.mark.parametrize('word_blocks', [0, 0.25])
@pytest.mark.parametrize('finetune', ['frozen', 'mask_q', 'image_q', 'both', 'all'])
def test_gradient_reaches_exactly_the_named_set(finetune, word_blocks):
    ours = build(finetune=finetune, word_blocks=word_blocks).train()
    expected = SETS.get(finetune)
    if expected is None:
        visual = {n for n, _ in ours.named_parameters() if n.startswith('clip.visual.')}
        expected = (QUERIES | visual) - {ATTENTION.format(BLOCKS - 1)}
    expected = expected | (WORDS if word_blocks else set())
    assert set(ours.trained_sizes()) == expected
    for layer in ours.word_attention:
        torch.nn.init.constant_(layer.gate, 0.1)
    features = ours.encode_image(images())
    out = ours.encode_masks(features, torch.randn(2, 3, 6, 6), words())
    assert out.requires_grad is bool(expected)
    if expected:
        (out * torch.randn_like(out)).sum().backward()
    reached = {n for n, p in ours.named_parameters() if p.grad is not None and p.grad.any()}
    # The bias of keys moves all scores of a query alike.
    assert reached | {'word_attention.0.key.bias'} == expected | {'word_attention.0.key.bias'}


def test_masqclip_trains_25_million_parameters():
    """24 projections of 1024 x 1024 with biases, the figure of the paper for ViT-L/14."""
    with torch.device('meta'):
        ours = MODELS.build(
            dict(type='MaskTokenEncoder', model_name='ViT-L-14-336-quickgelu', word_blocks=0)
        )
    assert sum(ours.trained_sizes().values()) == 24 * (1024 * 1024 + 1024) == 25_190_400


@pytest.mark.parametrize('with_cp', RECOMPUTES[1:])
def test_recomputed_activations_give_the_same_gradient(with_cp):
    plain, saving = build().train(), build(with_cp=with_cp, chunk=2).train()
    saving.load_state_dict(plain.state_dict())
    x, masks, text = images(), torch.randn(2, 5, 6, 6), words()
    for model in (plain, saving):
        model.encode_masks(model.encode_image(x), masks, text).square().sum().backward()
    for (name, a), (_, b) in zip(plain.named_parameters(), saving.named_parameters()):
        if a.requires_grad:
            torch.testing.assert_close(a.grad, b.grad, msg=name)


def test_bad_input_says_what_was_expected():
    ours = build()
    features = ours.encode_image(images())
    for masks in (torch.ones(3, 4, 5, 5), torch.ones(4, 5, 5), torch.ones(2, 4, 0, 5)):
        with pytest.raises(ValueError, match=r'masks must be \(B, Q, h, w\) with B=2'):
            ours.encode_masks(features, masks)
    with pytest.raises(ValueError, match='need a CLIP with a ViT image tower'):
        build(model_name=copy.deepcopy(CONVNEXT), finetune='frozen')
    for options in (dict(finetune='attention'), dict(word_blocks=1.5), dict(chunk=0)):
        with pytest.raises(ValueError, match='finetune must be one of'):
            build(**options)
