"""MAFT+ and FC-CLIP: parity with the published modules, through converter and public classes.

Values are compared relative to the standard deviation of the expected array. Made at one thread:
another thread count moves them by up to 1e-5.
"""

from __future__ import annotations

import json
import re
import zlib
from pathlib import Path

import pytest
import torch
from mmseg.registry import MODELS
from safetensors.torch import load_file

from infoclip_mmseg.losses import mask_aware_loss, representation_compensation
from infoclip_mmseg.losses.masks import label_targets, normalised_soft_iou
from infoclip_mmseg.models.decode_heads.mask_checkpoint import convert_maftp, rename_key
from infoclip_mmseg.models.layers.mask_pooling import (
    class_logits,
    mask_pooling,
    mask_probabilities,
    semantic_map,
)
from infoclip_mmseg.models.layers.segments import instances, panoptic_segments
from infoclip_mmseg.models.necks.content_transfer import image_tokens
from infoclip_mmseg.models.proposals.mask2former import Proposals

DATA = Path(__file__).parents[1] / 'data'
FACTS = json.loads((DATA / 'maftp_tiny.json').read_text())
HEADS = dict(transfer=4, text=2)


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
    expected = expected.double()
    spread = expected.std() if expected.numel() > 1 else expected.abs()
    error = (actual.double() - expected).abs().max() / spread
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


@torch.no_grad()
def test_scale_is_clamped(model, numbers):
    pooled = numbers['pooled_clip_feature']
    scale = torch.tensor(5.0).exp().clamp(max=100)
    logits = class_logits(pooled, words_of(model), scale, model.prompts.word_counts)
    assert_close(logits, numbers['logits_scale5_b'])


@torch.no_grad()
def test_empty_masks(model, numbers):
    """Three queries of each image begin with an empty mask."""
    features = numbers['mask_features']
    mean = features.mean((2, 3), keepdim=True)
    flat = mean + 0.1 * (features - mean)
    found = model.decode_head.proposals.decoder([numbers[f'scale_{i}'] for i in range(3)], flat)
    masks = tuple(found.masks_queries_logits)
    queries = tuple(x.transpose(0, 1) for x in found.intermediate_hidden_states)
    empty = [(m <= 0).flatten(2).all(-1).sum(1).tolist() for m in masks]
    assert empty == FACTS['flat_empty_queries_per_layer']
    assert_close(torch.stack(masks)[..., ::4, ::4], numbers['flat_pred_masks'])
    proposals, words = Proposals(masks, queries, flat), words_of(model)
    logits = [model.decode_head.inside_logits(proposals, words, i) for i in range(len(masks))]
    assert_close(torch.stack(logits), numbers['flat_pred_logits_b'])


@torch.no_grad()
def test_padded_batch(model, numbers):
    """Two images of other sizes: their products at the padded size, cropped, then resized."""
    images = numbers['image'].float()
    parts = images[0:1, :, :90, :120], images[1:2, :, :80, :101]
    for index, (image, size) in enumerate(zip(parts, FACTS['padded_case']['output_sizes'])):
        mean, std = model.data_preprocessor.mean, model.data_preprocessor.std
        normalised = (image - mean) / std
        padded = model._at_input_size(normalised)
        assert padded.shape[-2:] == (96, 128)
        assert_close(padded[0, :, 72:, 96:], numbers['pad_input_corner'][index])
        features = model.extract_feat(normalised)
        text = model.backbone.embed_prompts(model.prompts)
        proposals = model.decode_head.proposals(features.blocks)
        masks = proposals.masks[-1]
        assert_close(masks[0, :, ::2, ::2], numbers['pad_pred_masks'][index])
        out = model.decode_head.outside_logits(features, masks, model.decode_head.words(text))
        assert_close(out[0], numbers['pad_out_vocab_b'][index])
        maps = model.segment(image, mode='whole')
        assert maps.shape[-2:] == image.shape[-2:]
        resized = torch.nn.functional.interpolate(maps, size, mode='bilinear')[0]
        step = index + 1
        assert_close(resized[:, ::step, ::step], numbers[f'pad_sem_seg_b_{index}'])
        labels, _ = model.label(image, mode='whole')
        assert (labels[0] == maps[0].argmax(0)).float().mean() > 0.9999


@torch.no_grad()
@pytest.mark.parametrize('form', ['semantic', 'panoptic'])
def test_padded_with_masks_resized_first(published, numbers, form):
    """As panoptic and instance output have them: masks are cropped and resized, then multiplied."""
    model = build(published, form)
    images = numbers['image'].float()
    parts = images[0:1, :, :90, :120], images[1:2, :, :80, :101]
    for index, (image, size) in enumerate(zip(parts, FACTS['padded_case']['output_sizes'])):
        if form == 'panoptic' and index == 0:
            continue
        mean, std = model.data_preprocessor.mean, model.data_preprocessor.std
        features = model.extract_feat((image - mean) / std)
        text = model.backbone.embed_prompts(model.prompts)
        classes, masks = model.decode_head.classify(features, text)
        masks = torch.nn.functional.interpolate(masks, (96, 128), mode='bilinear')
        masks = masks[..., : image.shape[-2], : image.shape[-1]]
        masks = torch.nn.functional.interpolate(masks, size, mode='bilinear')
        maps = semantic_map(classes, masks)[0]
        step = 1 if index == 0 else 4
        name = 'pad_before_sem_seg_b' if form == 'semantic' else 'pano_pad_sem_seg_b'
        assert_close(maps[:, ::step, ::step], numbers[f'{name}_{index}'])


@torch.no_grad()
def test_handmade_segments(numbers):
    logits, masks = numbers['hm_mask_cls'], numbers['hm_mask_pred']
    things = sorted(FACTS['thing_ids_b'].values())
    assert_close(semantic_map(logits[None], masks[None])[0], numbers['hm_semantic'])
    for suffix, score, overlap in (('', 0.2, 0.7), ('_0_08', 0.0, 0.8)):
        ids, segments = panoptic_segments(logits, masks, things, score, overlap)
        assert torch.equal(ids.int(), numbers[f'hm_panoptic{suffix}'])
        told = [dict(id=s['id'], isthing=s['is_thing'], category_id=s['label']) for s in segments]
        assert told == FACTS[f'hm_segments_info{suffix}']
        assert [s['area'] for s in segments] == [int((ids == s['id']).sum()) for s in segments]
    found = instances(logits, masks, things, top=20)
    assert_close(torch.tensor([f['score'] for f in found]), numbers['hm_instance_scores'])
    assert [f['label'] for f in found] == numbers['hm_instance_classes'].tolist()
    assert [f['area'] for f in found] == numbers['hm_instance_area'].tolist()


@torch.no_grad()
def test_fc_clip(published, numbers):
    state = {k: v for k, v in published.items() if not k.startswith(('cdt.', 'backbone_t.'))}
    model = build(state, ensemble=dict(alpha=0.4, beta=0.8, seen=FACTS['vocabulary_a']))
    names = FACTS['vocabulary_b']
    seen = [name for name, known in zip(names, FACTS['overlap_b']) if known]
    model.decode_head.ensemble['seen'] = seen
    features = model.extract_feat(numbers['input'])
    text = model.backbone.embed_prompts(model.prompts)
    words = model.decode_head.words(text)
    out = model.decode_head.outside_logits(features, numbers['pred_masks'][-1], words)
    assert_close(out, numbers['fcclip_out_vocab_b'])
    classes, _ = model.decode_head.classify(features, text)
    assert_close(classes, numbers['fcclip_mask_cls_log_b'])
    maps = model.decode_head.decode(features, text).logits
    assert_close(maps[..., ::4, ::4], numbers['fcclip_sem_seg_b_every4'])


def targets_of(numbers) -> list:
    return [label_targets(labels, 255) for labels in numbers['target'].long()]


def test_mask_aware_loss(numbers):
    logits = numbers['out_vocab_a'].clone().requires_grad_()
    masks, targets = numbers['pred_masks'][-1], targets_of(numbers)
    value = mask_aware_loss(logits[..., :-1], masks, targets)
    value.backward()
    assert value.item() == pytest.approx(numbers['ma_loss'].item(), rel=1e-4)
    assert_close(logits.grad, numbers['ma_grad'])
    pairs = []
    for mask, (_, truth) in zip(masks.sigmoid(), targets):
        resized = torch.nn.functional.interpolate(mask[None], truth.shape[-2:], mode='bilinear')[0]
        pairs.append(normalised_soft_iou(resized, truth))
    for name, parts in zip(('ma_soft_iou', 'ma_iou_normed'), zip(*pairs)):
        assert_close(torch.cat(parts), numbers[name])


def test_representation_compensation(numbers):
    value = representation_compensation(numbers['teacher_vis_dense'], numbers['clip_vis_dense'])
    assert value.item() == pytest.approx(numbers['rc_loss_unweighted'].item(), rel=1e-4)


def test_probabilities_without_void_sum_to_what_void_leaves(numbers):
    inside = numbers['pred_logits_b'][-1]
    log = mask_probabilities(numbers['out_vocab_b'][..., :-1], inside)
    assert_close(log, numbers['mask_cls_log_b'])


def trained_model(published):
    loss = dict(type='Mask2FormerCriterion', num_points=48)
    aware = dict(type='MaskAwareLoss')
    options = dict(backbone=dict(finetune='trunk'), loss_masks=loss, loss_mask_aware=aware)
    return build(published, vocabulary='a', **options)


def test_losses_and_gradients(published, numbers):
    model = trained_model(published)
    features = model.extract_feat(numbers['input'])
    text = model.backbone.embed_prompts(model.prompts)
    # Some versions of transformers draw numbers in the decoder, too.
    seed = lambda *_: torch.manual_seed(2024) and None  # noqa: E731
    model.decode_head.loss_masks.register_forward_pre_hook(seed)
    losses = model.decode_head.loss(features, text, targets_of(numbers))
    teacher = numbers['teacher_vis_dense']
    losses['rc_loss'] = 0.1 * representation_compensation(teacher, features.blocks[-1])
    expected = dict(FACTS['train_losses_weighted'])
    expected['loss_mask_aware'] = expected.pop('ranking_loss')
    assert losses.keys() == expected.keys()
    for name, value in expected.items():
        assert losses[name].item() == pytest.approx(value, rel=1e-3), name
    total = sum(losses.values())
    assert total.item() == pytest.approx(FACTS['train_total'], rel=1e-4)
    total.backward()
    parameters = dict(model.named_parameters())
    for key in (k for k in numbers if k.startswith('grad:')):
        name = key.removeprefix('grad:')
        assert_close(parameters[rename_key(name)].grad, numbers[key], 1e-3)
    trained = {name for name, p in parameters.items() if p.requires_grad}
    assert trained == {name for name, p in parameters.items() if p.grad is not None}
