"""MAFT+ and FC-CLIP: parity with the published modules, through converter and public classes.

Values are compared relative to the standard deviation of the expected array. Made at one thread:
another thread count moves them by up to 1e-5.
"""

from __future__ import annotations

import json
import re
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from mmseg.registry import MODELS
from safetensors.torch import load_file

from infoclip_mmseg.models.decode_heads.mask_checkpoint import convert_maftp

DATA = Path(__file__).parents[1] / 'data'
FACTS = json.loads((DATA / 'maftp_tiny.json').read_text())
HEADS = dict(proposals=4, transfer=4, text=2)


def tokenize(texts: list[str]) -> torch.Tensor:
    """The toy tokenizer of the golden file."""
    rows = []
    for text in texts:
        words = re.findall(r'[a-z0-9]+|[^\sa-z0-9]', text.lower())
        ids = [510, *(1 + zlib.crc32(word.encode()) % 509 for word in words), 511]
        rows.append(ids + [0] * (77 - len(ids)))
    return torch.tensor(rows)


@pytest.fixture(scope='module')
def numbers() -> dict[str, torch.Tensor]:
    return load_file(str(DATA / 'maftp_tiny.safetensors'))


@pytest.fixture(scope='module')
def published(fill_rule) -> dict[str, torch.Tensor]:
    """The state dict in the published layout."""
    shapes = FACTS['state_dict_shapes']
    state = {k: fill_rule(k, s) for k, s in shapes.items() if k != 'criterion.empty_weight'}
    return {**state, 'criterion.empty_weight': torch.tensor([1.0] * 5 + [0.1])}


def build(published: dict, form: str = 'semantic', vocabulary: str = 'b', **changes):
    conversion = convert_maftp({'model': published}, form, HEADS)
    config = conversion.model
    config['backbone'].update(changes.pop('backbone', {}))
    config['decode_head'].update(changes)
    config['data_preprocessor'] = dict(type='OpenVocabDataPreProcessor', bgr_to_rgb=True)
    model = MODELS.build(config)
    model.load_state_dict(conversion.state_dict)
    model.backbone.tokenizer = tokenize
    model.set_vocabulary(FACTS[f'vocabulary_{vocabulary}'])
    return model.eval()


@pytest.fixture
def model(published):
    return build(published)


@pytest.fixture
def features(model, numbers):
    return model.extract_feat(numbers['input'])


def assert_close(actual: torch.Tensor, expected: torch.Tensor, tolerance: float = 1e-4) -> None:
    assert actual.shape == expected.shape
    error = (actual.double() - expected.double()).abs().max() / expected.double().std()
    assert error < tolerance, f'error {error:.2e} of the std'


def words_of(model) -> torch.Tensor:
    return model.decode_head.words(model.backbone.embed_prompts(model.prompts))


def test_every_key_is_placed(published):
    conversion = convert_maftp(published, heads=HEADS)
    assert not conversion.unplaced
    assert all(k.startswith(('backbone_t.', 'criterion.')) for k in conversion.derived)


def test_input(model, numbers):
    images = numbers['image'].float()
    mean, std = model.data_preprocessor.mean, model.data_preprocessor.std
    assert_close((images - mean) / std, numbers['input'])


def test_trunk(features, numbers):
    for name, block in zip(('res2', 'res3', 'res4', 'res5'), features.blocks):
        assert_close(block, numbers[name])
    assert_close(features.blocks[-1], numbers['clip_vis_dense'])


@pytest.mark.parametrize('vocabulary', ['a', 'b'])
def test_text(model, numbers, vocabulary):
    model.set_vocabulary(FACTS[f'vocabulary_{vocabulary}'])
    assert list(model.prompts.word_counts) == FACTS[f'num_templates_{vocabulary}']
    tokens = model.backbone.tokenizer(list(model.prompts.texts))
    assert torch.equal(tokens, numbers[f'tokens_{vocabulary}'].long())
    words = words_of(model)
    assert_close(words[:-1], numbers[f'text_{vocabulary}'])
    if vocabulary == 'b':
        assert_close(words, numbers['text_classifier_b'])


@torch.no_grad()
def test_proposals(model, features, numbers):
    found = model.decode_head.proposals(features.blocks)
    assert_close(found.mask_features, numbers['mask_features'])
    assert_close(torch.stack(found.masks), numbers['pred_masks'])
    for vocabulary in 'ba':
        model.set_vocabulary(FACTS[f'vocabulary_{vocabulary}'])
        words = words_of(model)
        layers = range(len(found.masks))
        logits = [model.decode_head.inside_logits(found, words, layer) for layer in layers]
        assert_close(torch.stack(logits), numbers[f'pred_logits_{vocabulary}'])


@torch.no_grad()
def test_masks_pooled_and_classified(model, features, numbers):
    from infoclip_mmseg.models.layers.mask_pooling import mask_pooling

    masks, head = numbers['pred_masks'][-1], model.decode_head
    pooled = mask_pooling(features.blocks[-1], masks)
    assert_close(pooled, numbers['mask_pooled'])
    assert_close(model.backbone.project(pooled), numbers['pooled_clip_feature'])
    for vocabulary in 'ba':
        model.set_vocabulary(FACTS[f'vocabulary_{vocabulary}'])
        logits = head.outside_logits(features, masks, words_of(model))
        assert_close(logits, numbers[f'out_vocab_{vocabulary}'])


@torch.no_grad()
@pytest.mark.parametrize('form', ['semantic', 'panoptic'])
def test_transfer(published, numbers, form):
    from infoclip_mmseg.models.necks.content_transfer import image_tokens

    model = build(published, form)
    features = model.extract_feat(numbers['input'])
    last, project = features.blocks[-1], model.backbone.project
    tokens = image_tokens(last, project).transpose(1, 2).unflatten(2, last.shape[-2:])
    assert_close(tokens, numbers['dense_clip_feature'])
    prefix = 'pano_' if form == 'panoptic' else ''
    text = model.decode_head.transfer(words_of(model), last, project)
    assert_close(text, numbers[f'{prefix}cdt_text_b'])
    logits = model.decode_head.outside_logits(features, numbers['pred_masks'][-1], words_of(model))
    assert_close(logits, numbers[f'{prefix}out_vocab_b'])


@torch.no_grad()
def test_semantic(model, features, numbers):
    text = model.backbone.embed_prompts(model.prompts)
    classes, _ = model.decode_head.classify(features, text)
    assert_close(classes, numbers['mask_cls_log_b'])
    maps = model.decode_head.decode(features, text).logits
    assert_close(maps[..., ::2, ::2], numbers['sem_seg_b_even'])
    agreement = (maps.argmax(1) == numbers['sem_seg_b_argmax']).float().mean()
    assert agreement > 0.9999
    assert_close(
        model.segment(numbers['image'].float(), mode='whole')[..., ::2, ::2],
        numbers['sem_seg_b_even'],
    )


def test_shapes_of_the_file(numbers):
    for key in sorted(numbers):
        print(key, tuple(numbers[key].shape), numbers[key].dtype)
    assert isinstance(np.zeros(1), np.ndarray)
