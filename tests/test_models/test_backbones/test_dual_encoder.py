"""CLIPDualEncoder: towers, grids, finetune policies, weights."""

from __future__ import annotations

import copy
import zipfile

import open_clip
import pytest
import torch
from open_clip.transformer import QuickGELU
from safetensors.torch import load_file
from toys import RECOMPUTES

from infoclip_mmseg.models import CLIPDualEncoder
from infoclip_mmseg.models.backbones.vit import interpolate_positions
from infoclip_mmseg.models.backbones.weights import find_weights
from infoclip_mmseg.utils.checkpoint_files import CheckpointError

NAMES = ['cat', 'a very long name of a red car', 'dog']


@pytest.fixture
def toy_clip(toy_cfg):
    return toy_cfg()['backbone']['model_name']


@pytest.fixture
def encoder(toy_clip):
    return CLIPDualEncoder(toy_clip).eval()


def build_on_meta(name, **kwargs):
    with torch.device('meta'):
        return CLIPDualEncoder(name, **kwargs)


@pytest.mark.parametrize('size', [(32, 32), (48, 48), (24, 64), (8, 8)])
def test_any_grid(encoder, size):
    features = encoder.encode_image(torch.randn(2, 3, *size))
    grid = (size[0] // 8, size[1] // 8)
    assert features.dense.shape == (2, 32, *grid)
    assert [block.shape for block in features.blocks] == [(2, 128, *grid)] * 2
    assert encoder.encode_pooled(torch.randn(2, 3, *size)).shape == (2, 32)


def test_images_of_a_batch_are_independent(encoder):
    images = torch.randn(2, 3, 24, 40)
    both = encoder.encode_image(images).dense
    alone = torch.cat([encoder.encode_image(image[None]).dense for image in images])
    torch.testing.assert_close(both, alone, rtol=1e-4, atol=1e-5)
    assert not torch.allclose(both[0], both[1], atol=1e-2)


@pytest.mark.parametrize('size', [(30, 32), (4, 4), (0, 8)])
def test_size_must_fit_the_patch(encoder, size):
    with pytest.raises(ValueError, match='multiples of its 8 x 8 pixel patch'):
        encoder.encode_image(torch.zeros(1, 3, *size))


def test_pooled_and_text_equal_open_clip(toy_clip, encoder, toy_weights):
    reference = open_clip.CLIP(**copy.deepcopy(toy_clip)).eval()
    reference.load_state_dict(load_file(str(toy_weights)))
    encoder.pretrained = str(toy_weights)
    encoder.init_weights()
    images = torch.randn(2, 3, 32, 32)
    tokens = encoder.tokenizer(NAMES)
    with torch.no_grad():
        pooled, text = encoder.encode_pooled(images), encoder.encode_text(tokens)
        torch.testing.assert_close(pooled, reference.encode_image(images), rtol=1e-4, atol=1e-5)
        # The reference runs all 77 columns: trimming behind the end token changes nothing.
        torch.testing.assert_close(text, reference.encode_text(tokens), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize('encode', ['encode_image', 'encode_pooled', 'encode_text'])
def test_checkpointing_runs_blocks_again_and_changes_nothing(toy_clip, encode):
    inputs = torch.randn(2, 3, 32, 32) if encode != 'encode_text' else torch.tensor([[1, 9, 8]] * 2)
    gradients, runs = [], []
    for with_cp in RECOMPUTES:
        torch.manual_seed(0)
        encoder = CLIPDualEncoder(toy_clip, finetune='full', with_cp=with_cp).train()
        tower = encoder.text_tower if encode == 'encode_text' else encoder.clip.visual
        norm = tower.transformer.resblocks[0].ln_1
        norm.register_forward_hook(lambda *_, with_cp=with_cp: runs.append(with_cp))
        out = getattr(encoder, encode)(inputs)
        out = out.dense if encode == 'encode_image' else out
        out.square().sum().backward()
        gradients.append([p.grad for p in tower.parameters() if p.grad is not None])
    assert runs == [False, *(with_cp for with_cp in RECOMPUTES[1:] for _ in range(2))]
    for plain, *recomputed in zip(*gradients, strict=True):
        for gradient in recomputed:
            torch.testing.assert_close(gradient, plain)


def test_custom_text_tower(toy_clip):
    encoder = CLIPDualEncoder(dict(toy_clip, custom_text=True)).eval()
    tokens = encoder.tokenizer(NAMES)
    with torch.no_grad():
        expected = encoder.clip.encode_text(tokens)
        torch.testing.assert_close(encoder.encode_text(tokens), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ('name', 'quick'),
    [
        ('ViT-B-16-quickgelu', True),
        ('ViT-B-16', False),
        ('ViT-L-14-336-quickgelu', True),
        ('ViT-H-14', False),
    ],
)
def test_known_models_build(name, quick):
    encoder = build_on_meta(name)
    assert any(isinstance(m, QuickGELU) for m in encoder.clip.modules()) == quick
    layers = len(encoder.clip.visual.transformer.resblocks)
    assert encoder.out_blocks == (layers // 3 - 1, 2 * layers // 3 - 1)


@pytest.mark.parametrize('name', ['RN50', 'roberta-ViT-B-32', 'coca_ViT-B-32', 'no-such-model'])
def test_other_towers_are_refused(name):
    with pytest.raises(ValueError, match=name):
        build_on_meta(name)


def test_attention_policy_of_vit_b16_trains_exactly_q_and_v():
    encoder = build_on_meta('ViT-B-16-quickgelu')
    expected = {
        f'{tower}transformer.resblocks.{i}.attn.{x}_proj_weight'
        for tower in ('visual.', '')
        for i in range(12)
        for x in 'qv'
    }
    assert len(expected) == 48
    assert set(encoder.trainable_names) == expected
    actual = {name for name, p in encoder.clip.named_parameters() if p.requires_grad}
    assert actual == expected


def test_other_policies(toy_clip):
    assert CLIPDualEncoder(toy_clip, finetune='frozen').trainable_names == []
    full = CLIPDualEncoder(toy_clip, finetune='full')
    everything = {name for name, _ in full.clip.named_parameters()}
    assert set(full.trainable_names) == everything - {'logit_scale'}
    with pytest.raises(ValueError, match='finetune must be one of'):
        CLIPDualEncoder(toy_clip, finetune='attn')


def test_positions_keep_the_class_token():
    embedding = torch.randn(17, 6)
    wide = interpolate_positions(embedding, (4, 4), (3, 7))
    assert wide.shape == (22, 6)
    assert torch.equal(wide[0], embedding[0])
    assert interpolate_positions(embedding, (4, 4), (4, 4)) is embedding


@pytest.mark.parametrize('suffix', ['.pt', '.bin', '.pth', '.safetensors'])
def test_weight_files(toy_clip, toy_weights, tmp_path, suffix):
    state, path = load_file(str(toy_weights)), toy_weights
    if suffix != '.safetensors':
        path = tmp_path / f'clip{suffix}'
        wrapped = {'state_dict': {f'module.{k}': v for k, v in state.items()}}
        torch.save(wrapped if suffix == '.pt' else state, path)
    encoder = CLIPDualEncoder(toy_clip, pretrained=str(path))
    encoder.init_weights()
    assert torch.equal(encoder.clip.visual.proj, state['visual.proj'])
    packed = state['visual.transformer.resblocks.0.attn.in_proj_weight']
    attention = encoder.clip.visual.transformer.resblocks[0].attn
    assert torch.equal(attention.v_proj_weight, packed[-128:])


def torchscript_archive(clip, path):
    """A file in the form of OpenAI's releases."""

    class Holder(torch.nn.Module):
        def __init__(self):
            super().__init__()
            for name, module in clip.named_children():
                setattr(self, name, module)
            for name, parameter in clip.named_parameters(recurse=False):
                setattr(self, name, parameter)
            for name in ('input_resolution', 'context_length', 'vocab_size'):
                self.register_buffer(name, torch.tensor(1))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x

    torch.jit.trace(Holder(), torch.zeros(1)).save(str(path))
    assert zipfile.is_zipfile(path)


def test_openai_archive_needs_quickgelu(toy_clip, tmp_path):
    clip = open_clip.CLIP(**copy.deepcopy(toy_clip))
    path = tmp_path / 'ViT-toy.pt'
    torchscript_archive(clip, path)
    encoder = CLIPDualEncoder(toy_clip, pretrained=str(path))
    encoder.init_weights()
    assert torch.equal(encoder.clip.visual.proj, clip.visual.proj)
    gelu = CLIPDualEncoder(dict(toy_clip, quick_gelu=False), pretrained=str(path))
    with pytest.raises(ValueError, match='trained with QuickGELU'):
        gelu.init_weights()


def test_tag_of_the_other_gelu_is_refused():
    with pytest.raises(ValueError, match="model_name='ViT-B-16-quickgelu'"):
        find_weights('ViT-B-16', 'openai', quick_gelu=False)
    with pytest.raises(ValueError, match="model_name='ViT-B-16'"):
        find_weights('ViT-B-16', 'laion2b_s34b_b88k', quick_gelu=True)


def test_no_network_is_one_error(monkeypatch):
    def fail(*args, **kwargs):
        raise OSError('no route')

    monkeypatch.setattr(open_clip, 'download_pretrained', fail)
    pattern = 'ViT-B-16.*data/clip/.*model.backbone.pretrained='
    with pytest.raises(FileNotFoundError, match=pattern):
        find_weights('ViT-B-16-quickgelu', 'openai', quick_gelu=True)


def test_wrong_weights_are_refused(toy_clip, toy_weights, tmp_path):
    encoder = CLIPDualEncoder(toy_clip, pretrained=str(tmp_path / 'absent.pt'))
    with pytest.raises(FileNotFoundError, match='model.backbone.pretrained'):
        encoder.init_weights()
    with pytest.raises(ValueError, match='neither a file nor an open_clip tag'):
        find_weights('ViT-B-16-quickgelu', 'opnai', quick_gelu=True)
    smaller = copy.deepcopy(toy_clip)
    smaller['vision_cfg']['layers'] = 3
    with pytest.raises(ValueError, match='does not hold weights of'):
        CLIPDualEncoder(smaller, pretrained=str(toy_weights)).init_weights()
    broken = tmp_path / 'cut.bin'
    torch.save({'a': torch.zeros(1000)}, broken)
    broken.write_bytes(broken.read_bytes()[:500])
    with pytest.raises(CheckpointError, match='cut.bin'):
        CLIPDualEncoder(toy_clip, pretrained=str(broken)).init_weights()
