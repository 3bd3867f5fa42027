"""FISA as a whole model: its generator, training, oracles, auxiliary loss, bad input."""

from __future__ import annotations

import copy

import mask_tokens
import pytest
import torch
from mmengine.config import Config
from mmengine.structures import PixelData
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample

from infoclip_mmseg import OpenVocabInferencer
from infoclip_mmseg.losses import FiSeRLoss
from infoclip_mmseg.models.segmentors.oracle import with_truth
from infoclip_mmseg.utils.checkpoint_files import CheckpointError

CLASSES = ['wall', 'sky, clouds', 'tree', 'cat']


def build(toy_cfg, generator: bool = True, head: dict | None = None, **changes):
    torch.manual_seed(0)
    config = toy_cfg(**mask_tokens.config(generator, **changes))
    config['decode_head'] = dict(type='MaskTokenHead', **(head or {}))
    model = MODELS.build(config)
    model.set_vocabulary(CLASSES, things=[3])
    return model


def batch(size=(64, 96), count: int = 2):
    """Images of which the first shows two classes, the second three, one without a label."""
    torch.manual_seed(1)
    labels = torch.full((count, 1, *size), 255)
    for index, label in enumerate(labels):
        label[:, : size[0] // 2], label[:, size[0] // 2 :] = 1, 3
        if index % 2:
            label[:, :, : size[1] // 3] = 0
    samples = [SegDataSample(gt_sem_seg=PixelData(data=label)) for label in labels]
    return torch.randn(count, 3, *size), samples


def test_masks_are_those_of_the_generator(toy_cfg):
    """At the size of the images, which are no multiples of its patch, whatever CLIP is given."""
    model = build(toy_cfg).eval()
    images = torch.randn(2, 3, 70, 90)
    features = model.extract_feat(images)
    assert features.masks.shape == (2, 6, 70, 90) and features.size == (70, 90)
    assert features.dense.shape[-2:] == (6, 6)  # input_size 48
    generator = model.mask_generator.model
    padded = torch.nn.functional.pad(images, (0, 6, 0, 26))
    masks = generator.decode_head.propose(generator.backbone.encode_image(padded))
    whole = torch.nn.functional.interpolate(masks, (96, 96), mode='bilinear')
    torch.testing.assert_close(features.masks, whole[..., :70, :90])
    model.input_size = None
    features = model.extract_feat(images)
    assert features.masks.shape[-2:] == features.size == (72, 96)
    assert features.dense.shape[-2:] == (9, 12)


def test_the_generator_is_in_no_state_dict_and_learns_nothing(toy_cfg):
    model = build(toy_cfg).train()
    assert all(n.startswith(('backbone.', 'data_')) for n in model.state_dict())
    loss = model.loss(*batch())['decode.loss_ce']
    loss.backward()
    generator = model.mask_generator.model
    assert not generator.training
    assert all(p.grad is None and not p.requires_grad for p in generator.parameters())
    assert copy.deepcopy(model).mask_generator is model.mask_generator
    reached = {n for n, p in model.named_parameters() if p.grad is not None}
    assert reached == {n for n, p in model.named_parameters() if p.requires_grad}


def test_the_generator_has_its_own_normalisation(toy_cfg):
    model = build(toy_cfg).eval()
    other = copy.deepcopy(mask_tokens.GENERATOR)
    other['data_preprocessor'].update(mean=[0.0] * 3, std=[255.0] * 3)
    scaled = build(toy_cfg, mask_generator=dict(config=other)).eval()
    scaled.mask_generator.model.load_state_dict(
        model.mask_generator.model.state_dict(), strict=False
    )
    images = torch.rand(1, 3, 64, 64)
    mean, std = (
        x.flatten()[:, None, None]
        for x in (model.data_preprocessor.mean, model.data_preprocessor.std)
    )
    expected = scaled.mask_generator.model
    masks = expected.decode_head.propose(expected.backbone.encode_image(images))
    normalised = (255 * images - mean) / std
    torch.testing.assert_close(scaled.extract_feat(normalised).masks, masks, atol=1e-3, rtol=1e-3)


def test_without_a_generator_training_takes_the_true_masks(toy_cfg):
    """The loss by hand: the mean of the cross-entropies of five masks, none of them void."""
    model = build(toy_cfg, generator=False).train()
    images, samples = batch()
    loss = model.loss(images, samples)['decode.loss_ce']
    features, text = model.extract_feat(images), model.embed_vocabulary()
    words = model.decode_head.words(features, text)
    parts = []
    for index, labels in enumerate([(1, 3), (0, 1, 3)]):
        one = features._replace(
            dense=features.dense[index : index + 1],
            inputs=tuple(x[index : index + 1] for x in features.inputs),
        )
        for label in labels:
            mask = (samples[index].gt_sem_seg.data == label).float()[None]
            logits = model.decode_head.mask_logits(one, mask, words)[0, 0]
            parts.append(-logits.log_softmax(0)[label])
    torch.testing.assert_close(loss, 2 * torch.stack(parts).mean(), atol=1e-5, rtol=1e-5)
    ignored = build(toy_cfg, mask_generator=dict(in_training=False)).train()
    ignored.load_state_dict(model.state_dict())
    assert torch.equal(ignored.loss(images, samples)['decode.loss_ce'], loss)


def test_an_image_without_labels_beside_others_and_alone(toy_cfg):
    model = build(toy_cfg, generator=False).train()
    images, samples = batch(count=3)
    both = model.loss(images[:2], samples[:2])['decode.loss_ce']
    samples[2].gt_sem_seg.data[:] = 255
    torch.testing.assert_close(model.loss(images, samples)['decode.loss_ce'], both)
    alone = model.loss(images[2:], samples[2:])['decode.loss_ce']
    assert alone == 0
    alone.backward()
    alone = build(toy_cfg).train().loss(images[2:], samples[2:])['decode.loss_ce']
    assert alone > 0  # of a generator: all masks are void


@torch.no_grad()
def test_step_0_is_the_frozen_baseline_exactly(toy_cfg):
    ours = build(toy_cfg).eval()
    frozen = build(toy_cfg, backbone=dict(finetune='frozen', word_blocks=0)).eval()
    frozen.load_state_dict(ours.state_dict(), strict=False)
    ours.mask_generator = frozen.mask_generator
    images = torch.rand(2, 3, 70, 90) * 255
    a, b = (model.segment(images, mode='whole') for model in (ours, frozen))
    assert a.shape == (2, 4, 70, 90) and torch.equal(a, b)


@torch.no_grad()
def test_output(toy_cfg):
    """Semantic, panoptic and instance output of one classification; other words for a call."""
    model = build(toy_cfg, head=dict(score=0.0, overlap=0.0)).eval()
    images = torch.rand(2, 3, 70, 90) * 255
    labels, _ = model.label(images, mode='whole')
    assert labels.shape == (2, 70, 90)
    for ids, segments in model.panoptic(images, ['sky', 'cat', 'dog'], things=['cat']):
        assert set(ids.unique().tolist()) - {0} == {s['id'] for s in segments}
    [(_, found), _] = model.segments(images, task='instance', things=[3], top=8)
    assert all(f['label'] == 3 and f['mask'].shape == (70, 90) for f in found)
    assert model.segment(images, ['a', 'b'], mode='slide').shape == (2, 2, 80, 80)


@torch.no_grad()
def test_the_ensemble_with_mask_pooling(toy_cfg):
    ensemble = dict(alpha=0.0, beta=0.0, seen=['cat'])
    model = build(toy_cfg, head=dict(ensemble=ensemble)).eval()
    images = torch.rand(1, 3, 64, 64) * 255
    tokens = model.segment(images, mode='whole')
    model.decode_head.ensemble = None
    torch.testing.assert_close(model.segment(images, mode='whole'), tokens)
    model.decode_head.ensemble = dict(alpha=1.0, beta=1.0, seen=['cat'])
    pooled = model.segment(images, mode='whole')
    assert not torch.allclose(pooled, tokens)
    for query in model.backbone.mask_queries:  # mask tokens then say only what is void
        query.weight.mul_(0.5)
    features, text = model.extract_feat(images), model.embed_vocabulary()
    a = model.decode_head.classify(features, text)[0][..., :-1]
    query.weight.mul_(0.5)
    b = model.decode_head.classify(features, text)[0][..., :-1]
    torch.testing.assert_close(a.softmax(-1), b.softmax(-1), atol=1e-4, rtol=1e-3)


# Oracles --------------------------------------------------------------------------------------


def truth(size=(50, 80)):
    """A panoptic and a semantic ground truth at a size of its own."""
    ids = torch.ones(1, *size, dtype=torch.long)
    ids[:, 20:, :40], ids[:, 30:, 50:] = 2, 3
    labels = torch.tensor([0, 1, 3, 3])[ids]
    sample = SegDataSample(
        gt_sem_seg=PixelData(data=labels),
        gt_panoptic=PixelData(data=ids),
        metainfo=dict(ori_shape=size),
    )
    sample.set_metainfo(
        dict(gt_segments=[dict(id=index, label=label) for index, label in ((1, 1), (2, 3), (3, 3))])
    )
    return sample


@torch.no_grad()
@pytest.mark.parametrize('panoptic', [False, True])
def test_true_masks_with_true_classes_are_the_truth(toy_cfg, panoptic):
    """What is left of the error is resizing: none here, as sizes are multiples of each other."""
    model = build(
        toy_cfg, head=dict(overlap=0.5), test_cfg=dict(oracle='masks', panoptic=panoptic)
    ).eval()
    images, samples = torch.randn(2, 3, 100, 160), [truth(), truth()]
    seen = {}

    def told(features, text):
        seen['masks'] = features.masks
        targets = model.decode_head.targets(samples)
        labels = torch.stack([labels for labels, _ in targets])
        known = torch.nn.functional.one_hot(labels, 5).float()
        return known.add(1e-8).log(), features.masks

    model.decode_head.classify_masks = told
    results = model.predict(images, samples)
    assert seen['masks'].shape == (2, 3, 100, 160)
    for sample in results:
        wrong = sample.pred_sem_seg.data != sample.gt_sem_seg.data
        assert wrong.float().mean() < 0.02
        if panoptic:
            assert [s['label'] for s in sample.pred_segments] == [1, 3, 3]
            wrong = sample.pred_panoptic.data != sample.gt_panoptic.data
            assert wrong.float().mean() < 0.02


@torch.no_grad()
def test_true_classes_of_the_masks_of_a_model(toy_cfg):
    """Each true segment gives its class to the mask that overlaps it best; others are void."""
    model = build(toy_cfg).eval()
    ids = truth((64, 96)).gt_panoptic.data[0]
    masks = torch.stack([ids == 2, ids == 1, ids == 9, ids == 3]).float() * 2 - 1
    features = model.extract_feat(torch.randn(1, 3, 64, 96))._replace(masks=masks[None])
    sample = truth((64, 96))
    known = with_truth(model.decode_head, features, [sample], 'classes', (64, 96))
    assert known.labels.tolist() == [[3, 1, 4, 3]]
    classes, _ = model.decode_head.classify(known, model.embed_vocabulary())
    assert classes.argmax(-1).tolist() == known.labels.tolist()


@torch.no_grad()
@pytest.mark.parametrize('oracle', [None, 'masks', 'classes'])
def test_any_mask_model_has_oracles(oracle):
    """FC-CLIP's and MAFT+'s head too, whose given masks take the query that is nearest."""
    config = copy.deepcopy(mask_tokens.GENERATOR)
    config['test_cfg'].update(oracle=oracle, panoptic=True)
    torch.manual_seed(0)
    model = MODELS.build(config).eval()
    model.set_vocabulary(CLASSES)
    [sample] = model.predict(torch.randn(1, 3, 70, 90), [truth()])
    assert sample.pred_panoptic.data.shape == (1, 50, 80)
    if oracle == 'classes':
        assert {s['label'] for s in sample.pred_segments} <= {1, 3}
    features = model.extract_feat(torch.randn(1, 3, 64, 96))
    own = model.decode_head.classify(features, model.embed_vocabulary())
    given = features._replace(masks=own[1][:, [4, 1]])
    again = model.decode_head.classify(given, model.embed_vocabulary())
    torch.testing.assert_close(again[0], own[0][:, [4, 1]])


# FiSeR ----------------------------------------------------------------------------------------


def test_any_segmentor_carries_fiser(toy_cfg, toy):
    for model in (
        toy(loss_aux=[dict(type='FiSeRLoss')], backbone=dict(finetune='attention')),
        build(toy_cfg, loss_aux=[dict(type='FiSeRLoss', num_heads=4)], synonyms='max'),
    ):
        model.set_vocabulary(CLASSES)
        images, samples = batch((48, 48))
        loss = model.train().loss(images, samples)['loss_fiser']
        loss.backward()
        reached = {n for n, p in model.named_parameters() if p.grad is not None and p.grad.any()}
        assert any(n.startswith('backbone.') for n in reached), 'the encoder learns from it'
        assert {n for n in reached if n.startswith('auxiliary_losses.0.')}
    queries = {n for n in reached if 'mask_queries' in n}
    assert len(queries) == 8


def test_fiser_is_no_teachers_and_not_built_for_inference(toy_cfg):
    from infoclip_mmseg.models import OpenVocabSegmentor

    assert 'loss_aux' in OpenVocabSegmentor.TRAINING_KEYS
    model = build(toy_cfg, loss_aux=[dict(type='FiSeRLoss')])
    assert not model.distiller.needs_teacher
    twice = [dict(type='FiSeRLoss'), dict(type='FiSeRLoss')]
    with pytest.raises(ValueError, match='give each a loss_name'):
        build(toy_cfg, loss_aux=twice)
    assert isinstance(model.auxiliary_losses[0], FiSeRLoss)


@pytest.mark.parametrize('finetune', ['mask_q', 'image_q', 'all'])
def test_mixed_precision(toy_cfg, finetune):
    """Training in bfloat16 is close to float32; words that are kept in tests stay float32."""
    losses = []
    model = build(toy_cfg, backbone=dict(finetune=finetune)).train()
    for layer in model.backbone.word_attention:
        torch.nn.init.constant_(layer.gate, 0.5)
    for enabled in (False, True):
        with torch.autocast('cpu', torch.bfloat16, enabled=enabled):
            losses.append(model.loss(*batch())['decode.loss_ce'])
    losses[1].backward()
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.requires_grad)
    torch.testing.assert_close(losses[1], losses[0], rtol=0.1, atol=0.1)
    model.eval()
    with torch.no_grad(), torch.autocast('cpu', torch.bfloat16):
        model(*batch(), mode='predict')
    assert {key.dtype for pair in model.backbone._kept[2] for key in pair} == {torch.float32}


def test_own_images_and_words(toy_cfg, tmp_path, photo):
    """A checkpoint holds CLIP and what was trained; without one it is the frozen baseline."""
    config = toy_cfg(**mask_tokens.config(loss_aux=[dict(type='FiSeRLoss')]))
    config['decode_head'] = dict(type='MaskTokenHead')
    imports = dict(imports=['infoclip_mmseg'], allow_failed_imports=False)
    path, weights = tmp_path / 'fisa.py', tmp_path / 'fisa.pth'
    Config(dict(model=config, custom_imports=imports)).dump(path)
    model = MODELS.build(config)
    torch.nn.init.constant_(model.backbone.word_attention[0].gate, 0.25)
    torch.save(dict(state_dict=model.state_dict()), weights)
    segmenter = OpenVocabInferencer(str(path), weights=str(weights))
    assert segmenter.model.backbone.word_attention[0].gate.item() == 0.25
    [result] = segmenter(str(photo), ['sky', 'wall'], return_scores=True)
    assert result.labels.shape == (48, 64) and result.scores.shape == (2, 48, 64)
    [again] = segmenter(str(photo), ['wall', 'sky', 'cat'], return_scores=True)
    assert again.scores.shape[0] == 3
    assert OpenVocabInferencer(str(path)).model.backbone.word_attention[0].gate.item() == 0


# Bad input ------------------------------------------------------------------------------------


def test_bad_input_says_how_to_mend_it(toy_cfg, tmp_path):
    model = build(toy_cfg, generator=False).eval()
    with pytest.raises(ValueError, match='classifies masks and makes none: set model.mask_gen'):
        model.segment(torch.rand(1, 3, 64, 64), mode='whole')
    with pytest.raises(TypeError, match="needs model.backbone.type='MaskTokenEncoder'"):
        wrong = toy_cfg(backbone=dict(finetune='frozen'), test_cfg=dict(mode='whole'))
        wrong['decode_head'] = dict(type='MaskTokenHead')
        wrong = MODELS.build(wrong)
        wrong.set_vocabulary(CLASSES)
        wrong.loss(*batch())
    images, samples = batch()
    samples[0].gt_sem_seg = PixelData(data=samples[0].gt_sem_seg.data.repeat(1, 2, 2))
    with pytest.raises(ValueError, match='true masks are .* resized together'):
        model.train().loss(images, samples)
    with pytest.raises(ValueError, match=r"oracle='masks' needs the ground truth"):
        build(toy_cfg, test_cfg=dict(oracle='masks')).eval().predict(images)
    with pytest.raises(ValueError, match=r'test_cfg.oracle must be one of'):
        build(toy_cfg, test_cfg=dict(oracle='both'))
    with pytest.raises(ValueError, match='needs a head that finds masks and mode="whole"'):
        build(toy_cfg, test_cfg=dict(oracle='masks', mode='slide'))


def test_a_generator_that_cannot_be_had(toy_cfg, toy, tmp_path):
    images = torch.rand(1, 3, 64, 64)

    def ask(**options):
        build(toy_cfg, mask_generator=options).eval().segment(images, mode='whole')

    with pytest.raises(FileNotFoundError, match='tools/convert_maftp.py'):
        ask(config='configs/none.py')
    with pytest.raises(FileNotFoundError, match="names 'none.pth'"):
        ask(checkpoint='none.pth')
    with pytest.raises(ValueError, match='finds no masks; name a config'):
        ask(config=toy_cfg())
    other = tmp_path / 'other.pth'
    torch.save(dict(state_dict=toy().state_dict()), other)
    with pytest.raises(CheckpointError, match=r'model.mask_generator, .*another architecture'):
        ask(checkpoint=str(other))
