"""Files of CLIPs with timm's ViTs: transformers' SigLIP, EVA-CLIP and DeCLIP, MetaCLIP, DFN."""

from __future__ import annotations

import copy
import json

import open_clip
import pytest
import torch
from mmseg.registry import MODELS
from timm.models.eva import checkpoint_filter_fn
from timm_toys import SIGLIP_TEXT, clip_config

from infoclip_mmseg.models.backbones.layouts import LAYOUTS
from infoclip_mmseg.models.backbones.names import pack_qkv, split_qkv

EVA = ('toy_eva02', 'toy_eva02_e', 'toy_eva01')
TOKENS = torch.randint(1, 49000, (2, 16), generator=torch.Generator().manual_seed(0))


def encoder(kind: str, seed: int = 0, **changes):
    """An encoder all of whose weights are random."""
    torch.manual_seed(seed)
    config = dict(type='CLIPDualEncoder', model_name=clip_config(kind), **changes)
    built = MODELS.build(config).eval()
    with torch.no_grad():
        for parameter in built.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return built


def same(first, second, part: str = '') -> bool:
    first, second = first.clip.state_dict(), second.clip.state_dict()
    return all(torch.equal(first[name], second[name]) for name in first if name.startswith(part))


@pytest.fixture
def siglip(tmp_path):
    """transformers' SigLIP with random weights, and the file that it has written."""
    transformers = pytest.importorskip('transformers')
    sizes = dict(hidden_size=64, intermediate_size=256, num_attention_heads=2)
    text = dict(sizes, num_hidden_layers=2, vocab_size=49408, max_position_embeddings=16)
    vision = dict(sizes, num_hidden_layers=4, image_size=32, patch_size=8, hidden_act='gelu')
    torch.manual_seed(5)
    config = transformers.SiglipConfig(text_config=text, vision_config=vision)
    model = transformers.SiglipModel(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    model.save_pretrained(tmp_path)
    return model, tmp_path / 'model.safetensors'


@torch.no_grad()
def test_siglip_of_transformers(siglip):
    theirs, path = siglip
    ours = encoder('toy_siglip', pretrained=str(path))
    ours.init_weights()
    images = torch.randn(2, 3, 32, 32)
    expected = theirs(input_ids=TOKENS, pixel_values=images)
    image = torch.nn.functional.normalize(ours.encode_pooled(images), dim=-1)
    text = torch.nn.functional.normalize(ours.encode_text(TOKENS), dim=-1)
    torch.testing.assert_close(image, expected.image_embeds, rtol=0, atol=1e-5)
    torch.testing.assert_close(text, expected.text_embeds, rtol=0, atol=1e-5)
    # SigLIP's probability that image and text belong together, Eq. 1 of arXiv 2303.15343.
    probability = (ours.logit_scale * image @ text.T + ours.clip.logit_bias).sigmoid()
    wanted = expected.logits_per_image.sigmoid()
    torch.testing.assert_close(probability, wanted, rtol=1e-4, atol=1e-6)


@torch.no_grad()
def test_siglip_at_another_size_is_that_of_transformers(siglip):
    """transformers interpolates as the encoder does: bicubic, without anti-aliasing."""
    theirs, path = siglip
    ours = encoder('toy_siglip', pretrained=str(path))
    ours.init_weights()
    images = torch.randn(2, 3, 24, 56)
    expected = theirs.vision_model(images, interpolate_pos_encoding=True)
    torch.testing.assert_close(
        ours.encode_pooled(images), expected.pooler_output, rtol=0, atol=1e-5
    )


def test_siglip_of_another_size_is_named(siglip):
    _, path = siglip
    with pytest.raises(ValueError, match='does not hold weights of .*of another shape'):
        other = clip_config('toy_siglip')
        other['text_cfg']['width'] = 32
        config = dict(type='CLIPDualEncoder', model_name=other, pretrained=str(path))
        MODELS.build(config).init_weights()


@pytest.mark.parametrize('kind', [*EVA, 'toy_siglip'])
@pytest.mark.parametrize('prefix', ['', 'module.'])
def test_there_and_back(kind, prefix, tmp_path):
    ours = encoder(kind)
    layout = LAYOUTS['transformers-siglip' if kind == 'toy_siglip' else 'eva-clip']
    state = ours.clip.state_dict()
    written = layout.write(state)
    assert layout.matches(written) and not layout.matches(state)
    assert [k for k, other in LAYOUTS.items() if other.matches(written)] == [
        'transformers-siglip' if kind == 'toy_siglip' else 'eva-clip'
    ]
    assert written.keys() == layout.write(pack_qkv(state)).keys()
    back = split_qkv(layout.read(written))
    assert back.keys() == state.keys() and all(torch.equal(back[k], state[k]) for k in state)
    torch.save({'state_dict': {prefix + k: v for k, v in written.items()}}, tmp_path / 'a.pt')
    other = encoder(kind, seed=1, pretrained=str(tmp_path / 'a.pt'))
    other.init_weights()
    assert same(ours, other)


@pytest.mark.parametrize('kind', EVA)
def test_eva_names_are_those_that_timm_reads(kind):
    """timm converts EVA-CLIP's files too, but for the text tower."""
    ours = encoder(kind)
    written = LAYOUTS['eva-clip'].write(ours.clip.state_dict())
    trunk = ours.clip.visual.trunk
    read = checkpoint_filter_fn(written, trunk)
    expected = pack_qkv(trunk.state_dict())
    assert read.keys() == expected.keys()
    assert all(torch.equal(read[name], expected[name]) for name in read)
    if kind == 'toy_eva02':  # as in the published files of EVA02-B and DeCLIP
        block = {k.removeprefix('visual.blocks.0.') for k in written if '.blocks.0.' in k}
        assert {'attn.q_bias', 'attn.v_bias', 'attn.inner_attn_ln.weight', 'attn.q_proj.weight'} < (
            block
        )
        assert {'mlp.w1.weight', 'mlp.w2.bias', 'mlp.w3.weight', 'mlp.ffn_ln.bias'} < block


@pytest.mark.parametrize('form', ['with prefix', 'bare', 'whole', 'open_clip'])
def test_declip_replaces_the_image_tower(form, tmp_path):
    declip, start = encoder('toy_eva02', seed=1), encoder('toy_eva02', seed=2)
    torch.save(pack_qkv(start.clip.state_dict()), tmp_path / 'start.pt')
    state = LAYOUTS['eva-clip'].write(declip.clip.state_dict())
    # What the published code computes and saves with the weights.
    state |= {f'visual.blocks.{i}.attn.rope.freqs_{f}': torch.ones(4) for i in (0, 1) for f in 'a'}
    state = {name.replace('freqs_a', 'freqs_cos'): tensor for name, tensor in state.items()}
    if form == 'open_clip':
        state = pack_qkv(declip.clip.state_dict())
    elif form != 'whole':
        state = {k: v for k, v in state.items() if k.startswith('visual.')}
    if form == 'bare':
        state = {name.removeprefix('visual.'): tensor for name, tensor in state.items()}
    torch.save({'epoch': 6, 'state_dict': state}, tmp_path / 'declip.pt')
    files = dict(pretrained=str(tmp_path / 'start.pt'), image_weights=str(tmp_path / 'declip.pt'))
    ours = encoder('toy_eva02', seed=3, **files)
    ours.init_weights()
    assert same(ours, declip, 'visual.') and same(ours, start, 'text.')
    assert not same(ours, declip, 'text.')
    teacher = copy.deepcopy(ours)
    with torch.no_grad():
        for parameter in teacher.parameters():
            parameter.zero_()
    teacher.init_weights()  # as FrozenTeacher does, whatever the student has become
    assert same(ours, teacher)


def test_an_image_tower_alone_is_no_whole_clip(tmp_path):
    state = LAYOUTS['eva-clip'].write(encoder('toy_eva02').clip.state_dict())
    state = {name: tensor for name, tensor in state.items() if name.startswith('visual.')}
    path = tmp_path / 'declip.pt'
    torch.save(state, path)
    with pytest.raises(ValueError, match='holds the image tower alone: .*image_weights'):
        encoder('toy_eva02', pretrained=str(path)).init_weights()
    with pytest.raises(ValueError, match=r'does not hold weights of .*visual\.trunk'):
        encoder('toy_eva01', image_weights=str(path)).init_weights()
    with pytest.raises(FileNotFoundError, match='do not exist'):
        encoder('toy_eva02', image_weights='declip').init_weights()


PLAIN = dict(
    embed_dim=32,
    vision_cfg=dict(image_size=32, layers=3, width=64, head_width=32, patch_size=8),
    text_cfg=dict(context_length=77, vocab_size=49408, width=64, heads=2, layers=2),
)


@pytest.mark.parametrize('quick_gelu', [True, False])
def test_dfn_tells_its_activation(quick_gelu, tmp_path):
    """Apple's repositories have open_clip's weights and, beside them, its config."""
    clip = open_clip.CLIP(**copy.deepcopy(PLAIN), quick_gelu=quick_gelu)
    path = tmp_path / 'open_clip_pytorch_model.bin'
    torch.save(clip.state_dict(), path)
    config = dict(model_cfg=dict(PLAIN, **(dict(quick_gelu=True) if quick_gelu else {})))
    (tmp_path / 'open_clip_config.json').write_text(json.dumps(config))

    def load(quick_gelu):
        name = dict(PLAIN, quick_gelu=quick_gelu)
        built = MODELS.build(dict(type='CLIPDualEncoder', model_name=name, pretrained=str(path)))
        built.init_weights()
        return built

    assert torch.equal(load(quick_gelu).clip.visual.proj, clip.visual.proj)
    with pytest.raises(ValueError, match='open_clip_config.json, was trained with'):
        load(not quick_gelu)


@pytest.mark.parametrize('wrapped', [True, False])
def test_metaclip(wrapped, tmp_path):
    """Meta's own .pt files are open_clip's, of training or of weights alone."""
    clip = open_clip.CLIP(**copy.deepcopy(PLAIN), quick_gelu=True).eval()
    state = clip.state_dict()
    if wrapped:
        state = dict(epoch=1, state_dict={f'module.{k}': v for k, v in state.items()})
    torch.save(state, tmp_path / 'b16_400m.pt')
    name, path = dict(PLAIN, quick_gelu=True), str(tmp_path / 'b16_400m.pt')
    ours = MODELS.build(dict(type='CLIPDualEncoder', model_name=name, pretrained=path)).eval()
    ours.init_weights()
    images = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(ours.encode_pooled(images), clip.encode_image(images))


def test_siglip_text_is_read_out_at_its_last_token():
    """Without a causal mask padding counts: nothing is cut, nothing shared between prompts."""
    assert SIGLIP_TEXT['no_causal_mask']
    ours = encoder('toy_siglip')
    padded = TOKENS.clone()
    padded[:, 6:] = 1
    with torch.no_grad():
        plain = ours.encode_text(padded)
        assert (plain - ours.encode_text(TOKENS)).abs().max() > 1e-3
        padded[0, 15] = 7
        changed = ours.encode_text(padded)
    assert (plain - changed)[0].abs().max() > 1e-3
    torch.testing.assert_close(plain[1], changed[1])
