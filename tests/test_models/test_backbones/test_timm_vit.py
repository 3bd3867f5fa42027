"""CLIPs with timm's ViTs: open_clip's embeddings, dense readings written out, grids, training."""

from __future__ import annotations

import copy
import math

import open_clip
import pytest
import timm
import torch
import torch.nn.functional as F
from mmseg.registry import MODELS
from timm_toys import CLASS_TOKEN, KINDS, MODES, clip_config
from toys import RECOMPUTES

from infoclip_mmseg.models.backbones.dense_modes import DENSE_MODES
from infoclip_mmseg.models.backbones.names import pack_qkv, split_qkv
from infoclip_mmseg.models.backbones.vit import interpolate_positions

TOKENS = [[49406, 320, 2368, 49407, 0, 0], [49406, 518, 1929, 530, 2368, 49407]]


def build(kind: str, seed: int = 0, **changes):
    """An encoder whose weights, biases and norms are all random."""
    torch.manual_seed(seed)
    options = dict(model_name=clip_config(kind), dense_mode=MODES[kind])
    encoder = MODELS.build(dict(type='CLIPDualEncoder', **{**options, **changes})).eval()
    with torch.no_grad():
        for parameter in encoder.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return encoder


def plain_clip(encoder, kind: str):
    """open_clip's own model with the encoder's weights."""
    config = clip_config(kind)
    config.pop('custom_text')
    clip = open_clip.CustomTextCLIP(**config).eval()
    clip.load_state_dict(pack_qkv(encoder.clip.state_dict()))
    return clip


def last_input(encoder, images):
    """Tokens that enter the last block."""
    caught = []
    block = encoder.clip.visual.trunk.blocks[-1]
    handle = block.register_forward_pre_hook(lambda _, inputs: caught.append(inputs[0]))
    encoder.encode_pooled(images)
    handle.remove()
    return caught[0]


def as_map(tokens, grid):
    return tokens.transpose(1, 2).unflatten(2, grid)


@torch.no_grad()
@pytest.mark.parametrize('kind', KINDS)
def test_embeddings_are_open_clips(kind):
    encoder = build(kind)
    clip = plain_clip(encoder, kind)
    images, length = torch.randn(2, 3, 32, 32), clip.context_length
    tokens = F.pad(torch.tensor(TOKENS), (0, length - 6), value=1 if length == 16 else 0)
    expected = clip.encode_image(images)
    assert expected.std() > 1e-2
    torch.testing.assert_close(encoder.encode_pooled(images), expected, rtol=0, atol=1e-5)
    torch.testing.assert_close(
        encoder.encode_text(tokens), clip.encode_text(tokens), rtol=0, atol=1e-5
    )
    assert encoder.clip.logit_scale == clip.logit_scale


@torch.no_grad()
@pytest.mark.parametrize('kind', KINDS)
def test_other_grids(kind):
    """timm's own forward at any size is the other side, with equal position embeddings.

    (It interpolates those with anti-aliasing, which is not what CAT-Seg does.)
    """
    encoder = build(kind)
    trunk, images = encoder.clip.visual.trunk, torch.randn(2, 3, 24, 56)
    if trunk.pos_embed is not None:
        trunk.pos_embed[:] = trunk.pos_embed.mean(dim=1, keepdim=True)
    pool, proj = KINDS[kind]
    options = dict(global_pool=pool or 'avg', num_classes=0 if proj else 32)
    other = timm.create_model(kind, dynamic_img_size=True, **options).eval()
    other.load_state_dict(pack_qkv(trunk.state_dict()))
    expected = encoder.clip.visual.head(other(images))
    torch.testing.assert_close(encoder.encode_pooled(images), expected, rtol=0, atol=1e-5)
    features = encoder.encode_image(images)
    assert features.dense.shape == (2, encoder.embed_dim, 3, 7)
    assert [m.shape for m in features.blocks] == [(2, 64, 3, 7)] * 2
    alone = encoder.encode_image(images[1:])
    torch.testing.assert_close(features.dense[1:], alone.dense, rtol=0, atol=1e-5)
    with pytest.raises(ValueError, match='multiples of its 8 x 8 pixel patch, got 20 x 32'):
        encoder.encode_image(torch.zeros(1, 3, 20, 32))


def test_positions_without_a_class_token():
    plane = torch.arange(12.0).reshape(3, 4)  # bicubic interpolation keeps what is linear inside
    inside = interpolate_positions(plane.reshape(12, 1), (3, 4), (6, 8), 0).reshape(6, 8)
    expected = F.interpolate(plane[None, None], size=(6, 8), mode='bicubic')[0, 0]
    torch.testing.assert_close(inside, expected)
    kept = interpolate_positions(torch.randn(14, 5), (3, 4), (6, 8), 2)
    assert kept.shape == (2 + 48, 5)


def rotated(x, grid, heads, reference=3):
    """Rotary positions of EVA-02 by complex numbers; the class token is not rotated."""
    width = x.shape[-1] // heads
    frequencies = 1 / 10000 ** (torch.arange(width // 4) / (width // 4))
    rows, columns = torch.meshgrid(
        *(torch.arange(side) / side * reference for side in grid), indexing='ij'
    )
    angles = [(t.reshape(-1, 1) * frequencies) for t in (rows, columns)]
    turn = torch.polar(torch.ones(1), torch.cat(angles, dim=1))  # (N, width / 2)
    pairs = x[:, 1:].unflatten(-1, (heads, -1, 2)).contiguous()
    turned = torch.view_as_real(torch.view_as_complex(pairs) * turn[:, None]).flatten(2)
    return torch.cat([x[:, :1], turned], dim=1)


def attention(q, k, v, heads, scale=None):
    q, k, v = (x.unflatten(-1, (heads, -1)).transpose(1, 2) for x in (q, k, v))
    weights = (q @ k.mT * (scale or 1 / math.sqrt(q.shape[-1]))).softmax(dim=-1)
    return (weights @ v).transpose(1, 2).flatten(2)


@torch.no_grad()
@pytest.mark.parametrize(
    'mode', ['catseg', 'maskclip', 'clearclip', 'sclip', 'declip', 'vanilla_residual']
)
def test_eva02_written_out(mode):
    encoder = build('toy_eva02', dense_mode=mode)
    images = torch.randn(2, 3, 24, 40)
    x = last_input(encoder, images)
    w = encoder.clip.visual.trunk.state_dict()
    b, grid = 'blocks.3.', (3, 5)

    def norm(x, name):
        return F.layer_norm(x, x.shape[-1:], w[name + '.weight'], w[name + '.bias'], 1e-6)

    def linear(x, name):
        return F.linear(x, w[name + '.weight'], w.get(name + '.bias'))

    n = norm(x, b + 'norm1')
    q, k, v = (linear(n, f'{b}attn.{part}_proj') for part in 'qkv')
    plain = attention(q, q, v, 2, 1.0) + attention(k, k, v, 2, 1.0)
    q, k = rotated(q, grid, 2), rotated(k, grid, 2)
    mixed = {
        'clearclip': lambda: attention(q, q, v, 2),
        'sclip': lambda: attention(q, q, v, 2) + attention(k, k, v, 2),
        'declip': lambda: plain,
        'vanilla_residual': lambda: attention(q, k, v, 2),
    }.get(mode, lambda: v)()
    y = linear(norm(mixed, b + 'attn.norm'), b + 'attn.proj')
    if mode in ('catseg', 'vanilla_residual'):
        y = y + (x[:, :1] if mode == 'catseg' else x)
        n = norm(y, b + 'norm2')
        gated = F.silu(linear(n, b + 'mlp.fc1_g')) * linear(n, b + 'mlp.fc1_x')
        y = y + linear(norm(gated, b + 'mlp.norm'), b + 'mlp.fc2')
    expected = linear(norm(y, 'norm'), 'head')
    features = encoder.encode_image(images)
    torch.testing.assert_close(features.dense, as_map(expected[:, 1:], grid), rtol=0, atol=1e-5)
    torch.testing.assert_close(features.cls, expected[:, 0], rtol=0, atol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize('mode', ['catseg', 'maskclip_residual'])
@pytest.mark.parametrize('kind', ['toy_eva02_e', 'toy_eva01', 'toy_token'])
def test_other_class_tokens_written_out(kind, mode):
    encoder = build(kind, dense_mode=mode)
    images = torch.randn(2, 3, 24, 40)
    x, trunk = last_input(encoder, images), encoder.clip.visual.trunk
    block, w = trunk.blocks[3], split_qkv(trunk.blocks[3].state_dict())
    residual = x[:, :1] if mode == 'catseg' else x
    bias = w['attn.v_bias'] if 'attn.v_bias' in w else w['attn.qkv.bias'][128:]

    def read(x):
        return block.attn.proj(F.linear(x, w['attn.qkv.v_weight'], bias))

    if kind == 'toy_eva02_e':
        y = residual + block.norm1(read(x))
        y = y + block.norm2(block.mlp(y))
    else:
        first, second = (
            ('gamma_1', 'gamma_2') if kind == 'toy_eva01' else ('ls1.gamma', 'ls2.gamma')
        )
        y = residual + w[first] * read(block.norm1(x))
        y = y + w[second] * block.mlp(block.norm2(y))
    expected = trunk.head(trunk.norm(y))
    dense = encoder.encode_image(images).dense
    torch.testing.assert_close(dense, as_map(expected[:, 1:], (3, 5)), rtol=0, atol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize('mode', ['catseg', 'maskclip'])
def test_siglip_written_out(mode):
    """y = W_o (W_v x + b_v) + b_o;  dense = y + MLP(norm(y))."""
    encoder = build('toy_siglip', dense_mode=mode)
    images = torch.randn(2, 3, 24, 40)
    x, trunk = last_input(encoder, images), encoder.clip.visual.trunk
    block, w = trunk.blocks[3], trunk.state_dict()
    if mode == 'catseg':
        x = block(x)
    else:  # values of the last block alone: no residual connection, no MLP
        value = F.linear(
            block.norm1(x), w['blocks.3.attn.qkv.v_weight'], w['blocks.3.attn.qkv.bias'][128:]
        )
        x = block.attn.proj(value)
    x = F.layer_norm(x, (64,), w['norm.weight'], w['norm.bias'], 1e-6)
    value = x @ w['attn_pool.kv.weight'][64:].T + w['attn_pool.kv.bias'][64:]
    y = value @ w['attn_pool.proj.weight'].T + w['attn_pool.proj.bias']
    n = F.layer_norm(y, (64,), w['attn_pool.norm.weight'], w['attn_pool.norm.bias'], 1e-6)
    hidden = F.gelu(n @ w['attn_pool.mlp.fc1.weight'].T + w['attn_pool.mlp.fc1.bias'])
    expected = y + hidden @ w['attn_pool.mlp.fc2.weight'].T + w['attn_pool.mlp.fc2.bias']
    dense = encoder.encode_image(images).dense
    torch.testing.assert_close(dense, as_map(expected, (3, 5)), rtol=0, atol=1e-5)


@torch.no_grad()
def test_of_one_position_the_dense_embedding_is_the_pooled_one():
    encoder = build('toy_siglip')
    features = encoder.encode_image(torch.randn(2, 3, 8, 8))
    torch.testing.assert_close(features.dense[..., 0, 0], features.cls, rtol=0, atol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize('kind', KINDS)
def test_modes(kind):
    """All modes run and differ; with the untouched last block the pooled embedding is CLIP's."""
    encoder = build(kind)
    images, seen = torch.randn(2, 3, 24, 40), []
    for mode in DENSE_MODES:
        if mode == 'catseg' and kind == 'toy_hybrid':
            continue
        other = build(kind, dense_mode=mode)
        features = other.encode_image(images)
        assert features.dense.isfinite().all()
        if mode == 'vanilla_residual' or (mode == 'catseg' and KINDS[kind][0] == 'map'):
            pooled = encoder.encode_pooled(images)
            torch.testing.assert_close(features.cls, pooled, rtol=0, atol=1e-5)
            if mode == 'catseg':
                continue  # the same reading
        assert all((features.dense - dense).abs().max() > 1e-4 for dense in seen)
        seen.append(features.dense)
    blocks = build(kind, out_blocks=(0, 2)).encode_image(images).blocks
    caught = []
    encoder.clip.visual.trunk.blocks[2].register_forward_hook(lambda *a: caught.append(a[2]))
    encoder.encode_pooled(images)
    prefix = encoder.image_tower.num_prefix_tokens
    torch.testing.assert_close(blocks[1], as_map(caught[0][:, prefix:], (3, 5)))


def test_mean_pooling_has_no_class_token_to_add():
    with pytest.raises(ValueError, match="dense_mode='catseg' takes the class token .*maskclip"):
        build('toy_hybrid', dense_mode='catseg')
    with pytest.raises(ValueError, match='dense_mode must be one of'):
        build('toy_siglip', dense_mode='csa')
    with pytest.raises(ValueError, match=r'out_blocks must lie in 0\.\.2'):
        build('toy_siglip', out_blocks=(3,))


def test_what_trains():
    text = {f'text.transformer.resblocks.{i}.attn.{p}_proj_weight' for i in (0, 1) for p in 'qv'}
    separate, fused = 'attn.{}_proj.weight', 'attn.qkv.{}_weight'
    for kind in KINDS:
        form = separate if kind == 'toy_eva02' else fused
        image = {f'visual.trunk.blocks.{i}.{form.format(part)}' for i in range(4) for part in 'qv'}
        for policy, names in (('attention', image | text), ('image_attention', image)):
            encoder = build(kind, finetune=policy)
            assert set(encoder.trainable_names) == names
            named = encoder.clip.named_parameters()
            assert {name for name, p in named if p.requires_grad} == names
        everything = {name for name, _ in encoder.clip.named_parameters()}
        scales = {'logit_scale', 'logit_bias'}
        assert set(build(kind, finetune='full').trainable_names) == everything - scales
        assert build(kind, finetune='frozen').trainable_names == []
        with pytest.raises(ValueError, match='trains nothing of this image tower'):
            build(kind, finetune='trunk')


@pytest.mark.parametrize('kind', KINDS)
def test_gradients_and_recomputed_activations(kind):
    """Of what trains only the query of a last block that 'catseg' does not mix gets none."""
    images, gradients = torch.randn(2, 3, 24, 40), []
    for with_cp in RECOMPUTES:
        encoder = build(kind, with_cp=with_cp).train()
        encoder.encode_image(images).dense.square().sum().backward()
        named = dict(encoder.clip.named_parameters())
        image = [name for name in encoder.trainable_names if name.startswith('visual.')]
        gradients.append({name: named[name].grad for name in image if named[name].grad is not None})
    unused = set(image) - set(gradients[0])
    mixes = KINDS[kind][0] == 'map'
    assert len(unused) == (0 if mixes else 1) and all('blocks.3.' in name for name in unused)
    for recomputed in gradients[1:]:
        assert gradients[0].keys() == recomputed.keys()
        for name, gradient in gradients[0].items():
            torch.testing.assert_close(gradient, recomputed[name])


@torch.no_grad()
@pytest.mark.parametrize('kind', KINDS)
def test_mixed_precision(kind):
    encoder, images = build(kind), torch.randn(2, 3, 24, 40)
    exact = encoder.encode_image(images).dense
    with torch.autocast('cpu', dtype=torch.bfloat16):
        rough = encoder.encode_image(images).dense.float()
    assert F.cosine_similarity(rough, exact, dim=1).min() > 0.99
    half = copy.deepcopy(encoder).bfloat16().encode_image(images.bfloat16()).dense
    assert half.dtype == torch.bfloat16 and half.isfinite().all()


@torch.no_grad()
@pytest.mark.parametrize('kind', KINDS)
def test_weights_survive_saving(kind, tmp_path):
    """In the encoder's own layout, and in open_clip's, as ``pretrained``."""
    encoder, images = build(kind), torch.randn(2, 3, 24, 40)
    expected = encoder.encode_image(images).dense
    other = build(kind, seed=1)
    other.load_state_dict(encoder.state_dict())
    assert torch.equal(other.encode_image(images).dense, expected)
    torch.save(plain_clip(encoder, kind).state_dict(), tmp_path / 'a.pt')
    loaded = build(kind, seed=2, pretrained=str(tmp_path / 'a.pt'))
    twin = copy.deepcopy(loaded)
    loaded.init_weights()
    assert torch.equal(loaded.encode_image(images).dense, expected)
    assert twin.image_tower.trunk is twin.clip.visual.trunk is not loaded.clip.visual.trunk
    packed = build(kind, seed=3)
    packed.clip.load_state_dict(plain_clip(encoder, kind).state_dict())
    assert torch.equal(packed.encode_image(images).dense, expected)


def test_siglip_scale_has_no_limit():
    for kind, limited in (('toy_siglip', False), ('toy_eva02', True)):
        encoder = build(kind)
        encoder.clip.logit_scale.data.fill_(math.log(118))
        torch.testing.assert_close(encoder.logit_scale, torch.tensor(100.0 if limited else 118.0))


def test_class_tokens_are_those_that_a_config_pools():
    for kind in KINDS:
        assert build(kind).image_tower.reads_class_token == (kind in CLASS_TOKEN)
