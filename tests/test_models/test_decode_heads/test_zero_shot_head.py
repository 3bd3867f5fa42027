"""ZeroShotHead: prompt ensemble, synonyms, threshold, and the whole way from image to labels."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from mmengine.structures import PixelData
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample

from infoclip_mmseg.models import CLIPDualEncoder, ImageFeatures, ZeroShotHead, build_prompts
from infoclip_mmseg.models.decode_heads.zero_shot import class_probabilities
from infoclip_mmseg.models.text.prompts import TEMPLATE_SETS

WORDS = ['sky, wall', 'cat', 'dog, puppy, hound']
TEST_CFG = dict(mode='windows', window=32, stride=16, view_batch_size=3)


def zero_shot(toy, **changes):
    """A toy model with the head; ``changes`` update the head's config."""
    model = toy(
        decode_head=dict(type='ZeroShotHead', **changes),
        backbone=dict(dense_mode='clearclip', finetune='frozen'),
        input_size=None,
        templates=['a {}', 'the {} here'],
        synonyms='max',
        test_cfg=TEST_CFG,
    )
    return model.eval()


@pytest.fixture
def toy(toy_cfg):
    """Builder of toy models with another head: ``toy(decode_head, **changes)``."""

    def build(decode_head, **changes):
        torch.manual_seed(0)
        return MODELS.build(toy_cfg(**changes) | dict(decode_head=decode_head))

    return build


# Words and templates ------------------------------------------------------------------------


def test_the_eighty_templates():
    templates = TEMPLATE_SETS['imagenet']
    assert len(templates) == len(set(templates)) == 80
    assert {'a bad photo of a {}.', 'itap of my {}.', 'the {} in a video game.'} <= set(templates)
    prompts = build_prompts(['cat', 'dog'], 'imagenet')
    assert (prompts.num_classes, prompts.num_templates, len(prompts.texts)) == (2, 80, 160)
    with pytest.raises(
        ValueError, match="or one of \\['imagenet', 'vild'\\]; got \\('imagenette',\\)"
    ):
        build_prompts(['cat'], 'imagenette')


def test_each_synonym_keeps_its_prompts():
    prompts = build_prompts(WORDS, ['a {}', 'the {}'], 'max')
    assert prompts.word_counts == (2, 1, 3)
    assert (prompts.num_classes, prompts.num_embeddings) == (3, 6)
    assert prompts.texts[:4] == ('a sky', 'the sky', 'a wall', 'the wall')
    assert prompts.owners == tuple(range(12))
    assert build_prompts(WORDS, ['a {}'], 'first').num_embeddings == 3


def test_prompt_ensemble_by_hand(toy_cfg, monkeypatch):
    # Embeddings of 'a x', 'the x', 'a y', 'the y', of different length on purpose.
    vectors = torch.tensor([[3.0, 4.0], [0.0, 2.0], [-5.0, 0.0], [0.0, 0.5]])
    encoder = CLIPDualEncoder(toy_cfg()['backbone']['model_name'], finetune='frozen').eval()
    encoder.tokenizer = lambda texts: torch.arange(len(texts))[:, None]
    monkeypatch.setattr(encoder.text_encoder, 'encode', lambda tokens, run: vectors[tokens[:, 0]])
    text = encoder.embed_prompts(build_prompts(['x, y'], ['a {}', 'the {}'], 'max'))
    assert text.shape == (2, 2, 2)
    # x: mean of (0.6, 0.8) and (0, 1) is (0.3, 0.9); y: mean of (-1, 0) and (0, 1).
    dense = torch.tensor([2.0, 0.0]).view(1, 2, 1, 1)
    scores = ZeroShotHead()(ImageFeatures(dense, dense[..., 0, 0], ()), text)
    expected = torch.tensor([1 / math.sqrt(10), -1 / math.sqrt(2)])
    torch.testing.assert_close(scores.flatten(), expected)


def test_text_embeddings_of_words_come_back_from_the_disk(toy_cfg, tmp_path):
    clip = toy_cfg()['backbone']['model_name']
    encoder = CLIPDualEncoder(clip, finetune='frozen', text_cache_dir=str(tmp_path)).eval()
    texts = {mode: build_prompts(WORDS, ['a {}', 'the {}'], mode) for mode in ('first', 'max')}
    made = {mode: encoder.embed_prompts(prompts) for mode, prompts in texts.items()}
    assert made['max'].shape == (6, 2, 32) and len(list(tmp_path.iterdir())) == 2
    encoder.text_encoder.forget()
    torch.testing.assert_close(encoder.embed_prompts(texts['max']), made['max'])
    torch.testing.assert_close(made['max'][[0, 2, 3]], made['first'], rtol=1e-4, atol=1e-5)


# Scores to labels ---------------------------------------------------------------------------


def test_softmax_over_words_and_maximum_of_a_class():
    # Three classes with two, one and one words, one pixel; factors of e by logarithms.
    weights = torch.tensor([1.0, 3.0, 2.0, 4.0])
    scores = (weights.log() / 50).view(1, 4, 1, 1)
    probabilities = class_probabilities(scores, 50.0, (2, 1, 1))
    torch.testing.assert_close(probabilities.flatten(), torch.tensor([0.3, 0.2, 0.4]))
    without = class_probabilities(scores, 50.0)
    torch.testing.assert_close(without.flatten(), weights / 10)
    halved = class_probabilities(scores, 25.0)
    torch.testing.assert_close(halved.flatten(), weights.sqrt() / weights.sqrt().sum())


def test_synonyms_compete_by_their_best_word_not_by_their_sum():
    weights = torch.tensor([3.0, 3.0, 4.0])
    scores = (weights.log() / 50).view(1, 3, 1, 1)
    probabilities = class_probabilities(scores, 50.0, (2, 1))
    assert probabilities.argmax(dim=1).item() == 1


@pytest.mark.parametrize(
    ('threshold', 'background', 'expected'),
    [
        (0.0, 0, [1, 2, 2, 0]),
        (0.5, 0, [1, 0, 2, 0]),
        (0.51, 0, [1, 0, 0, 0]),
        (0.5, 2, [1, 2, 2, 0]),
    ],
)
def test_thresholding_as_on_voc21(threshold, background, expected):
    # Pixels: clearly 1; best 2 at 0.4; exactly 0.5; background itself.
    pixels = torch.tensor([[0.1, 0.8, 0.1], [0.3, 0.3, 0.4], [0.25, 0.25, 0.5], [0.9, 0.05, 0.05]])
    head = ZeroShotHead(threshold=threshold, background=background)
    probability, winner = pixels.T.reshape(3, 2, 2).max(dim=0)
    labels = head.labels(winner, probability)
    assert labels.shape == (2, 2) and labels.dtype == torch.long
    assert labels.flatten().tolist() == expected


@pytest.mark.parametrize(
    'options', [dict(threshold=1.5), dict(threshold=-0.1), dict(scale=0), dict(background=-1)]
)
def test_bad_options_are_refused(options):
    with pytest.raises(ValueError, match='ZeroShotHead needs scale > 0'):
        ZeroShotHead(**options)


# From images to labels ----------------------------------------------------------------------


def expected_probabilities(model, image, ori_shape):
    """Windows, resize, softmax of one image, written out: 24 x 48 pixels, 8 x 8 patches."""
    text = model.backbone.embed_prompts(model.prompts).mean(1)
    text = text / text.norm(dim=1, keepdim=True)
    total, count = torch.zeros(6, 24, 48), torch.zeros(48)
    for left in (0, 16):
        dense = model.backbone.encode_image(image[None, :, :, left : left + 32]).dense[0]
        dense = dense / dense.norm(dim=0)
        cosines = torch.einsum('wc,chv->whv', text, dense)
        total[:, :, left : left + 32] += F.interpolate(cosines[None], (24, 32), mode='bilinear')[0]
        count[left : left + 32] += 1
    scores = F.interpolate((total / count)[None], ori_shape, mode='bilinear')[0]
    words = (50 * scores).softmax(0)
    return torch.stack([words[:2].amax(0), words[2], words[3:].amax(0)])


@torch.no_grad()
def test_predict_of_a_batch_is_right_for_each_image(toy):
    model = zero_shot(toy, threshold=0.4, background=1)
    model.set_vocabulary(WORDS)
    images = torch.randn(3, 3, 24, 48)
    samples = [
        SegDataSample(
            metainfo=dict(ori_shape=(30, 60)), gt_sem_seg=PixelData(data=torch.zeros(1, 30, 60))
        )
        for _ in images
    ]
    out = model.predict(images, samples)
    for image, sample in zip(images, out):
        expected = expected_probabilities(model, image, (30, 60))
        torch.testing.assert_close(sample.seg_logits.data, expected, rtol=1e-4, atol=1e-5)
        best, labels = expected.max(0)
        labels[best < 0.4] = 1
        assert (sample.pred_sem_seg.data[0] == labels).float().mean() > 0.999
    first, second = (sample.seg_logits.data for sample in out[:2])
    assert (first - second).abs().max() > 0.05


@torch.no_grad()
def test_labels_are_checked_against_classes_not_words(toy):
    model = zero_shot(toy)
    model.set_vocabulary(WORDS)
    assert model.out_channels == 3
    sample = SegDataSample(gt_sem_seg=PixelData(data=torch.full((1, 32, 32), 4)))
    with pytest.raises(ValueError, match='has 3 names'):
        model.predict(torch.randn(1, 3, 32, 32), [sample])


@torch.no_grad()
def test_segment_gives_probabilities_of_classes(toy):
    model = zero_shot(toy)
    images = torch.rand(2, 3, 40, 37) * 255
    out = model.segment(images, classes=WORDS, mode='windows')
    assert out.shape == (2, 3, 40, 37) and out.sum(1).max() <= 1 + 1e-5
    alone = model.segment(images[1:], classes=WORDS, mode='windows')
    torch.testing.assert_close(out[1:], alone, rtol=1e-4, atol=1e-5)
    with pytest.raises(ValueError, match="mode 'slide' averages sigmoids"):
        model.segment(images, classes=WORDS)


@torch.no_grad()
def test_label_thresholds(toy):
    model = zero_shot(toy, threshold=0.35, background=2)
    images = torch.rand(2, 3, 40, 48) * 255
    best, expected = model.segment(images, classes=WORDS, mode='windows').max(dim=1)
    labels, probability = model.label(images, classes=WORDS, mode='windows')
    torch.testing.assert_close(probability, best)
    assert (best < 0.35).any() and (best >= 0.35).any()
    assert torch.equal(labels, expected.masked_fill(best < 0.35, 2))


@torch.no_grad()
def test_windows_average_the_probabilities_of_other_heads(toy):
    model = toy(dict(type='CosineHead'), test_cfg=TEST_CFG).eval()
    model.set_vocabulary(['cat', 'dog'])
    images = torch.randn(1, 3, 32, 32)
    expected = F.interpolate(model.encode_decode(images).sigmoid(), (32, 32), mode='bilinear')
    torch.testing.assert_close(model.probabilities(images, 'windows'), expected)


def test_configs_that_do_not_fit_are_refused(toy):
    head = dict(type='ZeroShotHead')
    with pytest.raises(ValueError, match="mode 'slide' averages sigmoids"):
        toy(head)
    with pytest.raises(ValueError, match="mode 'windows' needs a stride in pixels"):
        toy(head, test_cfg=dict(mode='windows'))
    with pytest.raises(ValueError, match="synonyms='max' needs decode_head"):
        toy(dict(type='CosineHead'), synonyms='max')
    with pytest.raises(ValueError, match='must be one of .*windows'):
        toy(head, test_cfg=dict(mode='window'))
