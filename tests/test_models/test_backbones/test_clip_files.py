"""CLIP files of other libraries and trainers: transformers' layout, prefixes, entries, errors."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import open_clip
import pytest
import torch
from mmseg.registry import MODELS
from safetensors.torch import save_file

from infoclip_mmseg.models.backbones.layouts import PREFIXES
from infoclip_mmseg.models.backbones.names import pack_qkv
from infoclip_mmseg.models.backbones.transformers_layouts import (
    from_transformers,
    to_transformers,
)
from infoclip_mmseg.models.backbones.weights import ENTRIES

CLIP = dict(
    embed_dim=32,
    quick_gelu=True,
    vision_cfg=dict(image_size=32, layers=3, width=64, head_width=32, patch_size=8),
    text_cfg=dict(context_length=77, vocab_size=49408, width=64, heads=2, layers=2),
)
TOWER = dict(intermediate_size=256, num_attention_heads=2, hidden_size=64, hidden_act='quick_gelu')
# Names and shapes of a CLIPModel of transformers 5.24 of the size of CLIP.
NAMES = Path(__file__).parents[2] / 'data/transformers_clip.json'


@pytest.fixture(scope='module')
def state() -> dict[str, torch.Tensor]:
    torch.manual_seed(3)
    state = open_clip.CLIP(**copy.deepcopy(CLIP)).state_dict()
    return {name: value + 0.05 * torch.randn(value.shape) for name, value in state.items()}


def encoder(path: Path, **changes):
    config = dict(type='CLIPDualEncoder', model_name={**CLIP, **changes}, pretrained=str(path))
    return MODELS.build(config).eval()


def assert_holds(path: Path, state: dict[str, torch.Tensor]) -> None:
    ours = encoder(path)
    ours.init_weights()
    plain = open_clip.CLIP(**copy.deepcopy(CLIP)).eval()
    plain.load_state_dict(state)
    images = torch.randn(2, 3, 32, 32)
    tokens = open_clip.SimpleTokenizer(context_length=77)(['a cat', 'a photo of two dogs'])
    with torch.no_grad():
        torch.testing.assert_close(ours.encode_pooled(images), plain.encode_image(images))
        torch.testing.assert_close(ours.encode_text(tokens), plain.encode_text(tokens))


def test_transformers_names_are_those_of_the_library(state):
    written = to_transformers(state)
    assert {k: list(v.shape) for k, v in written.items()} == json.loads(NAMES.read_text())
    assert all(tensor.is_contiguous() for tensor in written.values())


@pytest.mark.parametrize('suffix', ['.safetensors', '.bin'])
def test_a_file_of_transformers_gives_equal_outputs(state, tmp_path, suffix):
    written = {k: v.clone() for k, v in to_transformers(state).items()}
    path = tmp_path / f'model{suffix}'
    save_file(written, path) if suffix == '.safetensors' else torch.save(written, path)
    assert_holds(path, state)


def test_old_files_of_transformers_hold_position_ids_too(state, tmp_path):
    ids = {
        f'{tower}_model.embeddings.position_ids': torch.arange(5) for tower in ('text', 'vision')
    }
    torch.save({**to_transformers(state), **ids}, tmp_path / 'a.bin')
    assert_holds(tmp_path / 'a.bin', state)


def test_the_way_back(state):
    back = open_clip.CLIP(**copy.deepcopy(CLIP)).state_dict()
    read = pack_qkv(from_transformers(to_transformers(state)))
    assert read.keys() == back.keys()
    assert all(torch.equal(read[name], state[name]) for name in state)


def test_transformers_itself_agrees(tmp_path):
    transformers = pytest.importorskip('transformers')
    text = dict(TOWER, num_hidden_layers=2, vocab_size=49408, eos_token_id=49407, projection_dim=32)
    vision = dict(TOWER, num_hidden_layers=3, image_size=32, patch_size=8, projection_dim=32)
    config = transformers.CLIPConfig(text_config=text, vision_config=vision, projection_dim=32)
    theirs = transformers.CLIPModel(config).eval()
    theirs.save_pretrained(tmp_path)
    ours = encoder(tmp_path / 'model.safetensors')
    ours.init_weights()
    images = torch.randn(2, 3, 32, 32)
    tokens = open_clip.SimpleTokenizer(context_length=77)(['a cat', 'a photo of two dogs'])
    with torch.no_grad():
        pooled = theirs.vision_model(images).pooler_output
        expected = theirs.visual_projection(pooled)
        torch.testing.assert_close(ours.encode_pooled(images), expected, rtol=1e-4, atol=1e-5)
        pooled = theirs.text_model(tokens).pooler_output
        expected = theirs.text_projection(pooled)
        torch.testing.assert_close(ours.encode_text(tokens), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize('hidden_act', ['gelu', None])
def test_the_activation_of_its_config_json(state, tmp_path, hidden_act):
    vision = {} if hidden_act is None else dict(hidden_act=hidden_act)
    config = dict(model_type='clip', vision_config=vision)
    (tmp_path / 'config.json').write_text(json.dumps(config))
    torch.save(to_transformers(state), tmp_path / 'a.bin')
    right, wrong = (False, True) if hidden_act == 'gelu' else (True, False)
    encoder(tmp_path / 'a.bin', quick_gelu=right).init_weights()
    with pytest.raises(ValueError, match='config.json'):
        encoder(tmp_path / 'a.bin', quick_gelu=wrong).init_weights()


@pytest.mark.parametrize('prefix', [*PREFIXES, 'module._orig_mod.', '_orig_mod.model.clip.'])
def test_prefixes_that_all_names_share(state, tmp_path, prefix):
    torch.save({prefix + name: value for name, value in state.items()}, tmp_path / 'a.pt')
    assert_holds(tmp_path / 'a.pt', state)


def test_prefix_before_another_librarys_names(state, tmp_path):
    written = {f'model.{name}': value for name, value in to_transformers(state).items()}
    torch.save(written, tmp_path / 'a.bin')
    assert_holds(tmp_path / 'a.bin', state)


@pytest.mark.parametrize('entry', ENTRIES)
def test_training_checkpoints_are_unpacked(state, tmp_path, entry):
    torch.save({'epoch': 3, entry: state, 'optimizer': {'lr': 0.1}}, tmp_path / 'a.pt')
    assert_holds(tmp_path / 'a.pt', state)


@pytest.mark.parametrize(
    ('names', 'said'),
    [
        (['backbone.clip.visual.proj', 'decode_head.conv_seg.weight'], 'tools/export_clip.py'),
        (['sem_seg_head.x', 'backbone.y'], 'tools/convert_catseg.py'),
        (['visual.trunk.blocks.0.attn.qkv.weight', 'text.ln_final.weight'], 'timm'),
        (['visual.layer1.0.conv1.weight'], 'ResNet'),
        (['vision_model.head.probe', 'vision_model.embeddings.x'], 'SigLIP'),
        (['vision_model.embeddings.class_embedding'], 'image tower alone'),
        (['text_model.embeddings.token_embedding.weight'], 'text tower alone'),
        (['blocks.0.attn.qkv.weight', 'patch_embed.proj.weight'], 'ViT of timm'),
    ],
)
def test_what_does_not_fit_is_named(tmp_path, names, said):
    torch.save(dict.fromkeys(names, torch.zeros(2)), tmp_path / 'a.pt')
    with pytest.raises(ValueError, match=r'does not hold weights of') as error:
        encoder(tmp_path / 'a.pt').init_weights()
    assert 'It looks like' in str(error.value) and said in str(error.value)


def test_another_size_is_named(state, tmp_path):
    torch.save(to_transformers(state), tmp_path / 'a.bin')
    with pytest.raises(ValueError, match='of another size'):
        encoder(tmp_path / 'a.bin', embed_dim=16).init_weights()
