"""Pretraining of a small CLIP: views, losses, the exported file."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from mmseg.registry import DATASETS, MODELS
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from infoclip_mmseg.models import CLIPDualEncoder, FrozenTeacher, build_prompts
from infoclip_mmseg.models.backbones.weights import TOKEN_ROWS, TOKEN_TABLE, expand_token_table
from infoclip_mmseg.world import WorldSpec, caption_words
from infoclip_mmseg.world.pretraining import collate_views, export_clip, window_embeddings

SMALL = dict(
    embed_dim=16,
    quick_gelu=True,
    vision_cfg=dict(image_size=32, layers=3, width=32, head_width=16, patch_size=8),
    text_cfg=dict(context_length=77, vocab_size=49408, width=16, heads=2, layers=1),
)
PREPROCESSOR = dict(type='ViewPreprocessor', mean=[120.0, 115, 104], std=[68.0, 66, 70])
BACKBONE = dict(type='CLIPDualEncoder', model_name=SMALL, finetune='full')


def dataset(**options):
    views = options.pop('views', {8: 3, 16: 2, 32: 1})
    return DATASETS.build(
        dict(type='CaptionedViewsDataset', views=views, length=8, size=(32, 48), **options)
    )


@pytest.fixture
def batch():
    items = dataset()
    return collate_views([items[0], items[1]])


def test_views_and_captions(batch):
    shapes = {key: tuple(value.shape) for key, value in batch['images'].items()}
    assert shapes == {'8': (6, 3, 8, 8), '16': (4, 3, 16, 16), '32': (2, 3, 32, 32)}
    assert {key: len(value) for key, value in batch['texts'].items()} == {'8': 6, '16': 4, '32': 2}
    again = dataset()[1]
    assert np.array_equal(again['images']['8'].transpose(0, 3, 1, 2), batch['images']['8'][3:])
    assert again['texts']['16'] == batch['texts']['16'][2:]
    assert dataset(seed=1)[1]['texts'] != again['texts']
    classes = WorldSpec().classes
    assert all(any(name in text for name in classes) for text in batch['texts']['32'])


def test_views_larger_than_the_scene():
    with pytest.raises(ValueError, match=r'up to the scene size \(32, 48\)'):
        dataset(views={64: 1})


def test_contrastive_step_trains_everything_but_unused_words(batch):
    config = dict(type='ContrastiveCLIP', backbone=BACKBONE, data_preprocessor=PREPROCESSOR)
    model = MODELS.build(config)
    losses = model(**model.data_preprocessor(batch), mode='loss')
    assert set(losses) == {'loss_8', 'loss_16', 'loss_32'}
    # Untrained embeddings tell nothing: the loss is near log n.
    assert losses['loss_8'].item() == pytest.approx(np.log(6), abs=1.0)
    sum(losses.values()).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and parameter.grad.any(), name
    with pytest.raises(ValueError, match="mode='loss'"):
        model(**batch, mode='tensor')


def test_equal_captions_share_one_embedding(batch):
    model = MODELS.build(dict(type='ContrastiveCLIP', backbone=BACKBONE))
    seen = []
    encode = model.backbone.encode_text
    model.backbone.encode_text = lambda tokens: seen.append(len(tokens)) or encode(tokens)
    batch['texts'] = {key: ['one', 'two'] * (len(t) // 2) for key, t in batch['texts'].items()}
    images = {key: value.float() for key, value in batch['images'].items()}
    model(images, batch['texts'])
    assert seen == [2]


@pytest.mark.parametrize('size', [(16, 24), (8, 8)])
def test_windows_are_encoded_alone(size):
    encoder = CLIPDualEncoder(SMALL).eval()
    images = torch.randn(2, 3, *size)
    got = window_embeddings(encoder, images, (8,))
    assert got.shape == (2, 16, size[0] // 8, size[1] // 8)
    cut = images[1:, :, size[0] - 8 :, size[1] - 8 :]
    expected = torch.nn.functional.normalize(encoder.encode_pooled(cut), dim=-1)
    torch.testing.assert_close(got[1, :, -1, -1], expected[0], rtol=1e-4, atol=1e-5)
    both = window_embeddings(encoder, images, (8, 16))
    torch.testing.assert_close(both.norm(dim=1), torch.ones_like(both[:, 0]))
    assert not torch.allclose(both, got)


def test_self_distillation_moves_the_image_tower_only(batch):
    config = dict(type='SelfDistilledCLIP', backbone=BACKBONE, data_preprocessor=PREPROCESSOR)
    model = MODELS.build(config)
    data = model.data_preprocessor(batch)
    with pytest.raises(RuntimeError, match='FrozenTeacherHook'):
        model(**data)
    model.teacher = FrozenTeacher.from_student(model.backbone)
    losses = model(**data)
    sum(losses.values()).backward()
    reached = {n for n, p in model.named_parameters() if p.grad is not None and p.grad.any()}
    assert reached and all('.visual.' in name for name in reached)
    # The dense reading has no use for the last block's query and key.
    assert not any(
        'resblocks.2.attn.q_' in name or 'resblocks.2.attn.k_' in name for name in reached
    )
    with pytest.raises(ValueError, match='multiples of the patch of 8'):
        MODELS.build(dict(config, windows=(12,)))


def test_exported_file_is_small_and_loads_like_any_other_clip(tmp_path):
    encoder = CLIPDualEncoder(SMALL).eval()
    spec = WorldSpec()
    path = export_clip(encoder, tmp_path / 'a/clip.safetensors', caption_words(spec), {'k': 'v'})
    state = load_file(str(path))
    assert state[TOKEN_TABLE].shape[0] == state[TOKEN_ROWS].shape[0] < 100
    assert path.stat().st_size < 300_000
    with safe_open(str(path), 'pt') as file:
        assert file.metadata() == {'k': 'v'}
    loaded = CLIPDualEncoder(SMALL, pretrained=str(path)).eval()
    loaded.init_weights()
    prompts = build_prompts(spec.classes)
    torch.testing.assert_close(
        loaded.embed_prompts(prompts), encoder.embed_prompts(prompts), rtol=0.01, atol=0.01
    )
    table = loaded.clip.token_embedding.weight
    unknown = loaded.tokenizer(['aeroplane'])[0, 1]
    mean = state[TOKEN_TABLE].float().mean(0)
    torch.testing.assert_close(table[unknown].detach(), mean, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize('rows', [[0, 1], [0, 1, 99], [-1, 0, 1]])
def test_rows_that_do_not_fit(rows, tmp_path):
    state = {TOKEN_TABLE: torch.zeros(3, 4), TOKEN_ROWS: torch.tensor(rows)}
    with pytest.raises(ValueError, match=r'token_embedding\.rows'):
        expand_token_table(state, 50)
    save_file(state, str(tmp_path / 'x.safetensors'))
