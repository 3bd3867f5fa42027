"""CATSegHead on the classes that an image votes for: exact where all are decoded, and elsewhere."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from mmseg.structures import SegDataSample

from infoclip_mmseg.models import CATSegHead, EnsembleSegmentor, ImageFeatures
from infoclip_mmseg.models.layers.vocabulary_selection import class_votes, select_classes
from infoclip_mmseg.utils.tensors import resize

WEIGHTS = (1.0, 0.1, 0.01)
WORDS = [f'word {i}' for i in range(14)]


@pytest.fixture
def build(toy_cfg):
    """Builder of toy-sized heads with equal weights: ``build(training=False, **options)``."""

    def build(training: bool = False, **options) -> CATSegHead:
        torch.manual_seed(3)
        config = {**toy_cfg()['decode_head'], **options}
        config.pop('type')
        return CATSegHead(embed_dim=32, guidance_in_channels=128, **config).train(training)

    return build


def features(batch: int = 2, grid: tuple[int, int] = (4, 6)) -> ImageFeatures:
    torch.manual_seed(1)
    blocks = tuple(torch.randn(batch, 128, *grid) for _ in range(2))
    return ImageFeatures(torch.randn(batch, 32, *grid), torch.randn(batch, 32), blocks)


def pick(x: ImageFeatures, index: int) -> ImageFeatures:
    keep = slice(index, index + 1)
    return ImageFeatures(x.dense[keep], x.cls[keep], tuple(block[keep] for block in x.blocks))


def words(count: int, prompts: int = 1) -> torch.Tensor:
    torch.manual_seed(2)
    return torch.randn(count, prompts, 32)


def label_maps(count: int) -> torch.Tensor:
    """Two different ones of a few classes, with a strip that is ignored."""
    labels = torch.zeros(2, 16, 24, dtype=torch.long)
    labels[0, :, 12:], labels[1] = count - 1, count // 2
    labels[:, :3] = 255
    return labels


@pytest.mark.parametrize('classes', [5, 8, 12])  # pad_len is 8
@pytest.mark.parametrize('more', [0, 7])
def test_all_classes_decoded_is_the_model_without_selection(build, classes, more):
    x, text, k = features(), words(classes), classes + more
    plain = build().decode(x, text)
    selected = build(num_decoded=k).decode(x, text)
    assert torch.equal(selected.logits, plain.logits)
    assert (selected.classes is None) == (plain.classes is None)
    assert plain.classes is None or torch.equal(selected.classes, plain.classes)
    results = []
    for options in (dict(), dict(num_decoded_train=k)):
        head = build(training=True, with_cp=True, **options)
        loss = head.loss(x, text, label_maps(min(classes, 8)))['loss_seg']
        gradients = torch.autograd.grad(loss, list(head.parameters()), allow_unused=True)
        results.append([loss, *(x for x in gradients if x is not None)])
    assert len(results[0]) == len(results[1]) > 40
    for expected, actual in zip(*results):
        assert torch.equal(actual, expected)


@pytest.mark.parametrize('grid', [(4, 6), (5, 3), (1, 1)])
@pytest.mark.parametrize('k', [1, 3, 9])
@pytest.mark.parametrize('training', [False, True])
def test_each_image_is_asked_for_its_own_classes(build, grid, k, training):
    """Logits are those of a vocabulary that has no other words."""
    x, text = features(grid=grid), words(12)
    head = build(training, num_decoded=k, num_decoded_train=k)
    logits, classes = head.decode(x, text)
    assert classes.shape == (2, k) and logits.shape == (2, k, 4 * grid[0], 4 * grid[1])
    assert torch.equal(classes, select_classes(x.dense, text, k, WEIGHTS))
    if k == 3:
        assert not torch.equal(classes[0], classes[1])
    plain = build(training, pad_len=8 if k < 8 else 0)
    if k > 8:
        plain.load_state_dict(head.state_dict(), strict=False)
    for index in range(2):
        alone = plain.decode(pick(x, index), text[classes[index]])
        torch.testing.assert_close(logits[index], alone.logits[0], rtol=1e-3, atol=1e-4)
    dense = head(x, text)
    assert dense.shape[1] == 12
    undecoded = torch.ones(2, 12, dtype=torch.bool).scatter_(1, classes, False)
    assert (dense[undecoded] == -100).all()
    probability = head.scores(dense)
    assert (probability[undecoded] == 0).all()
    assert not undecoded.gather(1, probability.argmax(1).flatten(1)).any()


def test_every_weight_and_the_words_get_gradients(build):
    head, text = build(training=True, num_decoded_train=5, with_cp=True), words(12)
    text.requires_grad_()
    head.loss(features(), text, label_maps(12))['loss_seg'].backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in head.parameters())
    assert all(p.grad.abs().sum() > 0 for p in head.parameters())
    reached = text.grad.flatten(1).any(1)
    classes = head.select(features().dense, text, label_maps(12))
    assert torch.equal(reached.nonzero().flatten(), classes.unique())


@pytest.mark.parametrize('ignored', ['negative', 'exclude'])
@pytest.mark.parametrize('k', [3, 9])
def test_loss_of_classes_that_are_not_decoded(build, k, ignored):
    """'negative' is the loss of all T maps, with the logit that undecoded classes have."""
    x, text, labels = features(), words(12), label_maps(12)
    loss = dict(type='CATSegBCELoss', ignored=ignored)
    head = build(training=True, num_decoded_train=k, loss_decode=loss)
    classes = head.select(x.dense, text, labels)
    assert all(set(labels[b].unique().tolist()) - {255} <= set(classes[b].tolist()) for b in (0, 1))
    logits = head.decode(x, text, classes).logits
    maps = logits.new_full((2, 12, *logits.shape[2:]), -100.0)
    expected = head.loss_by_feat(
        maps.scatter(1, classes[..., None, None].expand_as(logits), logits), labels
    )['loss_seg']
    actual = head.loss(x, text, labels)['loss_seg']
    torch.testing.assert_close(actual, expected)
    left_out = build(
        training=True, num_decoded_train=k, loss_decode=loss, undecoded='exclude'
    ).loss(x, text, labels)['loss_seg']
    torch.testing.assert_close(left_out, expected * 12 / k)


def test_losses_of_mmseg_work_on_the_decoded_classes(build):
    x, text, labels = features(), words(12), label_maps(12)
    other = dict(type='CrossEntropyLoss', use_sigmoid=True, avg_non_ignore=True)
    own = dict(type='CATSegBCELoss', ignored='exclude')
    values = [
        build(training=True, num_decoded_train=4, loss_decode=[loss]).loss(x, text, labels)
        for loss in (dict(own, loss_name='loss_x'), dict(other, loss_name='loss_x'))
    ]
    torch.testing.assert_close(values[0]['loss_x'], values[1]['loss_x'])


def test_labels_come_first_also_without_a_vote(build):
    x, text = features(), words(12)
    head = build(training=True, num_decoded_train=3)
    least = build(num_decoded=11)
    (without,) = set(range(12)) - set(least.select(x.dense, text)[0].tolist())
    labels = torch.full((2, 16, 24), without)
    classes = head.select(x.dense, text, labels)
    assert without in classes[0].tolist()
    assert without not in head.select(x.dense, text)[0].tolist()
    assert head.loss(x, text, labels)['loss_seg'].isfinite()


def test_more_classes_in_the_labels_than_are_decoded(build):
    """A pixel whose class is not decoded is none of the others either."""
    x, text = features(), words(12)
    head = build(training=True, num_decoded_train=1)
    labels = torch.arange(12).repeat_interleave(2).expand(2, 16, 24)
    loss = head.loss(x, text, labels)['loss_seg']
    decoded = head.select(x.dense, text, labels)[..., None]
    only = labels.where(labels == decoded, 255)
    assert torch.equal(head.select(x.dense, text, only)[..., None], decoded)
    torch.testing.assert_close(loss, head.loss(x, text, only)['loss_seg'])
    assert loss < 5  # a labelled class without a logit of its own would count 100 nats


@pytest.mark.parametrize('k', [1, 4])
def test_all_labels_ignored(build, k):
    x, text = features(), words(12)
    labels = torch.full((2, 16, 24), 255)
    for ignored in ('negative', 'exclude'):
        loss = dict(type='CATSegBCELoss', ignored=ignored)
        head = build(training=True, num_decoded_train=k, loss_decode=loss)
        value = head.loss(x, text, labels)['loss_seg']
        assert value.isfinite() and (value == 0) == (ignored == 'exclude')
        gradients = torch.autograd.grad(value, list(head.parameters()))
        assert all(grad.isfinite().all() for grad in gradients)
    assert torch.equal(head.select(x.dense, text, labels), head.select(x.dense, text))


def test_training_and_inference_are_switched_apart(build):
    x, text = features(), words(12)
    for training in (False, True):
        head = build(training, num_decoded=3)
        assert (head.select(x.dense, text) is None) == training
        head = build(training, num_decoded_train=3)
        assert (head.select(x.dense, text) is None) != training
        assert build(training).select(x.dense, text) is None


def test_class_weights_and_selection_exclude_each_other(build):
    loss = dict(type='CATSegBCELoss', class_weight=[1.0] * 12)
    with pytest.raises(ValueError, match='leave out one'):
        build(num_decoded_train=3, loss_decode=loss)
    build(num_decoded=3, loss_decode=loss)


def test_fields_and_shorthand(build):
    assert build(num_decoded=3).selection == build(selection=dict(num_decoded=3)).selection
    assert build(num_decoded=3, selection=dict(num_decoded=4)).selection.num_decoded == 4
    with pytest.raises(TypeError, match='num_decoded_train'):
        build(num_classes_decoded=3)


# Whole models ---------------------------------------------------------------------------------


@pytest.fixture
def model(toy):
    """Decodes 3 of 14 words of each of the five or so views of an image."""
    model = toy(decode_head=dict(num_decoded=3), test_cfg=dict(size=(70, 80), stride=32)).eval()
    model.set_vocabulary(WORDS)
    text = F.normalize(words(len(WORDS)), dim=-1)  # those of a random text tower are all alike
    model.backbone.embed_prompts = lambda prompts: text
    return model


def photos() -> torch.Tensor:
    """Two images that differ."""
    images = torch.randn(2, 3, 60, 50)
    images[1, :, 20:] = images[1, :, 20:] / 9 + 2
    return images


@pytest.mark.parametrize('mode', ['slide', 'windows', 'whole'])
@pytest.mark.parametrize('batch', [1, 2, 16])
@torch.no_grad()
def test_views_of_an_image_share_their_classes(model, mode, batch):
    model.test_cfg.update(share_classes=True, view_batch_size=batch, mode=mode)
    images = photos()
    views = list(model._inference.views(images, mode))
    for view in views:
        assert view.classes.shape == (len(view.layout.views), 3)
        assert (view.classes == view.classes[0]).all()
    assert not torch.equal(views[0].classes[0], views[1].classes[0])
    maps = model.probabilities(images, mode)
    assert (maps.flatten(2).amax(2) > 0).sum(1).tolist() == [3, 3]
    alone = model.probabilities(images[1:], mode)
    torch.testing.assert_close(maps[1:], alone, rtol=1e-4, atol=1e-5)
    model.test_cfg['share_classes'] = False
    if mode != 'whole':
        own = model.probabilities(images, mode)
        assert ((own.flatten(2).amax(2) > 0).sum(1) > 3).any()


@torch.no_grad()
def test_shared_classes_are_those_of_all_positions(model):
    model.test_cfg['share_classes'] = True
    images = torch.randn(1, 3, 60, 50)
    (views,) = model._inference.views(images, 'slide')
    text, votes = model.embed_vocabulary(), 0
    working, whole = resize(images, (70, 80)), resize(images, (48, 48))
    crops = [working[..., t : t + 48, x : x + 48] for t in (0, 22) for x in (0, 32)] + [whole]
    for crop in crops:
        votes = votes + class_votes(model.extract_feat(crop).dense, text, WEIGHTS)[0]
    assert torch.equal(views.classes[0], votes[0].topk(3).indices.sort().values)


@pytest.mark.parametrize('mode', ['slide', 'windows', 'whole'])
@pytest.mark.parametrize('share', [False, True])
@torch.no_grad()
def test_predictions_keep_all_channels_and_undecoded_classes_never_win(model, mode, share):
    model.test_cfg.update(share_classes=share, mode=mode)
    samples = [SegDataSample(metainfo=dict(ori_shape=(85, 66))) for _ in range(2)]
    for sample in model.predict(torch.randn(2, 3, 60, 50), samples):
        maps = sample.seg_logits.data
        assert maps.shape == (14, 85, 66)
        decoded = maps.flatten(1).amax(1) > 0
        assert 3 <= decoded.sum() < 14
        labels = sample.pred_sem_seg.data[0]
        assert torch.equal(labels, maps.argmax(0)) and decoded[labels].all()


@torch.no_grad()
def test_shared_classes_of_a_model_without_selection_change_nothing(model):
    model.decode_head.selection = model.decode_head.selection._replace(num_decoded=14)
    images = torch.randn(2, 3, 60, 50)
    expected = model.probabilities(images)
    model.test_cfg['share_classes'] = True
    torch.testing.assert_close(model.probabilities(images), expected)


@torch.no_grad()
def test_the_ensemble_asks_both_for_the_same_classes(toy, toy_weights):
    model = toy(
        type='EnsembleSegmentor',
        untouched_weight=0.5,
        backbone=dict(pretrained=str(toy_weights)),
        decode_head=dict(num_decoded=3),
        test_cfg=dict(size=(70, 80), share_classes=True),
    ).eval()
    assert isinstance(model, EnsembleSegmentor)
    model.set_vocabulary(WORDS)
    maps = model.probabilities(torch.randn(2, 3, 60, 50))
    assert (maps.flatten(2).amax(2) > 0).sum(1).tolist() == [3, 3]
