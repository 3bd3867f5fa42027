"""Parity with independent implementations, through the converter and the public classes."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from mmengine.structures import PixelData
from mmseg.structures import SegDataSample
from toys import RECOMPUTES

from infoclip_mmseg.models.decode_heads.cat_seg_checkpoint import convert_catseg
from infoclip_mmseg.models.layers.vocabulary_selection import ClassSelection

NAMES = [f'class {i}' for i in range(12)]


def assert_close(actual: torch.Tensor, expected: torch.Tensor, tolerance: float = 1e-4) -> None:
    """Largest error, relative to the expected array's standard deviation."""
    decoded = expected != -100
    assert torch.equal(actual == -100, ~decoded)
    std = expected[decoded].std()
    error = (actual - expected)[decoded].abs().max() / std
    assert error < tolerance, f'error {error:.2e} of the std'


@pytest.fixture(scope='module')
def converted(published_state):
    return convert_catseg({'model': published_state})


@pytest.fixture
def model(toy, golden, converted):
    """The golden model; its toy vocabulary of 512 tokens needs the golden token ids."""
    clip = copy.deepcopy(converted.model['backbone']['model_name'])
    clip['text_cfg']['heads'] = 2
    model = toy(backbone=dict(model_name=clip))
    model.load_state_dict(converted.state_dict)
    model.backbone.tokenizer = lambda texts: golden[f'tokens_{len(texts)}']
    model.set_vocabulary(NAMES[:5])
    return model


def normalise(model, images):
    return (images - model.data_preprocessor.mean) / model.data_preprocessor.std


def test_image_tower(model, golden):
    features = model.extract_feat(normalise(model, golden['image']))
    tokens = torch.cat([features.cls[:, None], features.dense.flatten(2).transpose(1, 2)], dim=1)
    assert_close(tokens, golden['clip_dense'])
    assert_close(features.blocks[0], golden['block_1'])
    assert_close(features.blocks[1], golden['block_2'])
    upsampled = model.decode_head.guide(features)[1]
    assert_close(upsampled[0], golden['guidance_48'])
    assert_close(upsampled[1], golden['guidance_96'])


def test_pooled_at_pretrained_grid(model, golden):
    images = F.interpolate(normalise(model, golden['image']), size=(32, 32), mode='bilinear')
    assert_close(model.backbone.encode_pooled(images), golden['clip_pooled'])


@pytest.mark.parametrize('classes', [5, 12])
def test_text(model, golden, classes):
    model.set_vocabulary(NAMES[:classes])
    assert_close(model.backbone.embed_prompts(model.prompts), golden[f'text_{classes}'])


@pytest.mark.parametrize('classes', [5, 12])
@pytest.mark.parametrize('training', [True, False])
def test_logits(model, golden, classes, training):
    model.train(training).set_vocabulary(NAMES[:classes])
    logits = model.encode_decode(normalise(model, golden['image']))
    assert_close(logits, golden[f'logits_{classes}' + ('' if training else '_pool1')])


@pytest.mark.parametrize('training', [True, False])
def test_logits_of_selected_classes(model, golden, training):
    """5 words of 17: the logits of a vocabulary of 5."""
    model.train(training)
    features = model.extract_feat(normalise(model, golden['image']))
    text = torch.cat([golden['text_5'], golden['text_12']])
    classes = torch.arange(5).expand(len(features.dense), 5)
    logits = model.decode_head.decode(features, text, classes).logits
    assert_close(logits, golden['logits_5' + ('' if training else '_pool1')])


@pytest.mark.parametrize('classes', [5, 12])
def test_selection_of_all_classes_changes_no_digit(model, golden, classes):
    model.set_vocabulary(NAMES[:classes])
    images = normalise(model, golden['image'])
    expected = model.encode_decode(images)
    model.decode_head.selection = ClassSelection(num_decoded=classes, num_decoded_train=classes)
    assert torch.equal(model.encode_decode(images), expected)
    assert_close(model.eval().encode_decode(images), golden[f'logits_{classes}_pool1'])


@pytest.mark.parametrize('classes', [5, 12])
def test_segment_whole(model, golden, classes):
    logits = model.segment(golden['image'], classes=NAMES[:classes], mode='whole')
    assert_close(logits, golden[f'logits_{classes}_pool1'])


@pytest.mark.parametrize('view_batch_size', [1, 2, 16])
def test_segment_slide(model, golden, view_batch_size):
    model.test_cfg['view_batch_size'] = view_batch_size
    assert_close(model.segment(golden['slide_image'][None]), golden['slide_prob_5'])


@pytest.mark.parametrize('with_cp', RECOMPUTES)
@pytest.mark.parametrize('selected', [0, 5])
def test_loss_and_gradients(model, golden, with_cp, selected):
    model.train()
    model.decode_head.selection = ClassSelection(num_decoded_train=selected)
    model.backbone.with_cp = model.decode_head.with_cp = with_cp
    model.decode_head.class_chunk = 4 if with_cp else None
    samples = [
        SegDataSample(gt_sem_seg=PixelData(data=target[None])) for target in golden['target']
    ]
    losses = model.loss(normalise(model, golden['image']), samples)
    torch.testing.assert_close(
        losses['decode.loss_seg'][None], golden['loss_bce'], rtol=1e-5, atol=0
    )
    losses['decode.loss_seg'].backward()
    gradients = {name: p.grad for name, p in model.named_parameters()}
    clip, head = 'backbone.clip.', 'decode_head.'
    pairs = {
        'sem_seg_head.predictor.clip_model.': clip,
        'sem_seg_head.predictor.transformer.conv1': head + 'cost_embed',
        'sem_seg_head.predictor.transformer.head': head + 'conv_seg',
        'upsample2': head + 'upsample2',
    }
    checked = 0
    for key, expected in golden.items():
        if key.startswith('grad:'):
            prefix = next(p for p in pairs if key[5:].startswith(p))
            actual = gradients[pairs[prefix] + key[5:].removeprefix(prefix)]
            error = (actual - expected).norm() / expected.norm()
            assert error < 1e-3, f'{key}: {error:.2e}'
            checked += 1
    assert checked == 6


@pytest.mark.parametrize('classes', [5, 12])
@pytest.mark.parametrize('class_chunk', [None, 3])
def test_bfloat16(model, golden, classes, class_chunk):
    """Mixed precision: 2e-2 of the logits' norm, the same classes decoded."""
    model.eval().set_vocabulary(NAMES[:classes])
    model.decode_head.class_chunk = class_chunk
    with torch.no_grad(), torch.autocast('cpu', dtype=torch.bfloat16):
        logits = model.encode_decode(normalise(model, golden['image'])).float()
    expected = golden[f'logits_{classes}_pool1']
    decoded = expected != -100
    assert torch.equal(logits != -100, decoded)
    error = (logits - expected)[decoded].norm() / expected[decoded].norm()
    assert error < 2e-2, f'error {error:.2e}'


def test_slide_in_bfloat16(model, golden):
    with torch.autocast('cpu', dtype=torch.bfloat16):
        probability = model.segment(golden['slide_image'][None])
    torch.testing.assert_close(probability, golden['slide_prob_5'], rtol=0, atol=2e-2)
