"""Vocabularies above pad_len: label maps in chunks of classes equal those of dense maps."""

from __future__ import annotations

import pytest
import torch
from mmseg.structures import SegDataSample

from infoclip_mmseg.models import OpenVocabTTAModel
from infoclip_mmseg.models.layers.cost_volume import (
    cost_volume,
    max_similarity,
    scatter_logits,
    top_classes,
    top_cost_volume,
)
from infoclip_mmseg.models.views import class_maps
from infoclip_mmseg.models.views.windows import window_corners
from infoclip_mmseg.utils.tensors import resize

WORDS = [f'word {i}' for i in range(21)]  # the toy decodes 8 of them a view


@pytest.fixture(params=[1, 3, 1 << 22])
def chunk(request, monkeypatch):
    """Class maps that are held at a time, in pixels: one, a few, all."""
    monkeypatch.setattr(class_maps, '_CHUNK', request.param * 80 * 90)
    return request.param


@pytest.fixture
def model(toy):
    model = toy(test_cfg=dict(size=(70, 80), stride=32)).eval()
    model.set_vocabulary(WORDS)
    return model


def dense_windows(model, images: torch.Tensor) -> torch.Tensor:
    """Mean over windows at the images' own size, of maps of all classes."""
    total = torch.zeros(len(images), model.out_channels, *images.shape[-2:])
    cover = torch.zeros(images.shape[-2:])
    for top, left in window_corners(tuple(images.shape[-2:]), (48, 48), (32, 32)):
        part = (..., slice(top, top + 48), slice(left, left + 48))
        total[part] += resize(model.encode_decode(images[part]).sigmoid(), (48, 48))
        cover[part] += 1
    return total / cover


def dense_probabilities(model, images: torch.Tensor) -> torch.Tensor:
    """Mean over windows and whole image on maps of all classes, written down plainly."""
    size, window = (70, 80), (48, 48)
    working, whole = resize(images, size), resize(images, window)
    total = torch.zeros(len(images), model.out_channels, *size)
    cover = torch.zeros(size)
    corners = window_corners(size, window, (32, 32))
    for top, left in corners:
        cover[top : top + 48, left : left + 48] += 1
    for top, left in corners:
        part = (..., slice(top, top + 48), slice(left, left + 48))
        maps = resize(model.encode_decode(working[part]), window).sigmoid()
        total[part] += maps / (2 * cover[part])
    return total + resize(resize(model.encode_decode(whole), window).sigmoid(), size) / 2


@pytest.mark.parametrize('mode', ['slide', 'windows', 'whole'])
def test_labels_equal_argmax_of_dense_maps(model, chunk, mode):
    images = torch.randn(2, 3, 60, 50)
    meta = dict(ori_shape=(85, 66), flip=True, flip_direction='horizontal')
    with torch.no_grad():
        if mode == 'slide':
            expected = dense_probabilities(model, images)
        elif mode == 'windows':
            expected = dense_windows(model, images)
        else:
            expected = model.encode_decode(images).sigmoid()
        assert not torch.equal(expected[0].amax((1, 2)) > 0, expected[1].amax((1, 2)) > 0)
        torch.testing.assert_close(model.probabilities(images, mode), expected)
        expected = resize(expected.flip(3), (85, 66))
        model.test_cfg['mode'] = mode
        results = model.predict(images, [SegDataSample(metainfo=meta) for _ in images])
        model.test_cfg['max_dense_classes'] = len(WORDS) - 1
        sparse = model.predict(images, [SegDataSample(metainfo=meta) for _ in images])
    for result, other, maps in zip(results, sparse, expected):
        torch.testing.assert_close(result.seg_logits.data, maps)
        assert torch.equal(result.seg_logits.data == 0, maps == 0)
        assert torch.equal(result.pred_sem_seg.data[0], result.seg_logits.data.argmax(0))
        chosen = maps.gather(0, result.pred_sem_seg.data)[0]  # equal up to ties of rounding
        torch.testing.assert_close(chosen, maps.amax(0))
        assert torch.equal(result.pred_probability.data[0], result.seg_logits.data.amax(0))
        assert 'seg_logits' not in other
        assert torch.equal(other.pred_sem_seg.data, result.pred_sem_seg.data)
        assert torch.equal(other.pred_probability.data, result.pred_probability.data)


def test_ties_and_empty_pixels_take_the_first_class(chunk):
    maps = torch.rand(6, 5, 7)
    maps[4] = maps[2]  # the same word twice
    maps[:, 0, 0] = 0  # no class has any probability there: class 0, as argmax says
    maps[:, 1, 1] = 0.5
    labeller = class_maps.Labeller((5, 7), torch.device('cpu'))
    classes = torch.tensor([3, 5, 6, 9, 11, 12])
    for part in torch.arange(6).split(chunk):
        labeller.update(classes[part], maps[part])
    dense = torch.zeros(14, 5, 7)
    dense[classes] = maps
    assert torch.equal(labeller.winner, dense.argmax(0))
    assert labeller.winner[0, 0] == 0 and labeller.winner[1, 1] == 3
    assert not (labeller.winner == 11).any()


def test_undecoded_classes_have_probability_zero():
    logits = scatter_logits(torch.zeros(1, 2, 9, 9), torch.tensor([[1, 3]]), 5)
    maps = resize(logits, (17, 23)).sigmoid()
    assert (maps[0, [0, 2, 4]] == 0).all() and (maps[0, [1, 3]] == 0.5).all()


def test_label_of_plain_tensors(model):
    images = torch.randint(0, 256, (2, 3, 60, 50))
    labels, probability = model.label(images)
    maps = resize(model.segment(images), (60, 50))
    assert torch.equal(labels, maps.argmax(1))
    torch.testing.assert_close(probability, maps.amax(1))
    labels, probability = model.label(images, ['one'], mode='whole')
    assert torch.equal(labels, (probability <= model.decode_head.threshold).long() * 255)
    assert labels.shape == (2, 60, 50)


@pytest.mark.parametrize('batch', [1, 3, 16])
def test_views_of_several_images_in_one_batch(model, batch):
    images = torch.randn(3, 3, 60, 50)
    with torch.no_grad():
        expected = [model.predict(image[None])[0].pred_sem_seg.data for image in images]
        model.test_cfg['view_batch_size'] = batch
        results = model.predict(images)
    for result, alone in zip(results, expected):
        assert (result.pred_sem_seg.data == alone).float().mean() > 0.999


def test_chosen_volume_equals_that_of_all_classes():
    image = torch.randn(2, 8, 3, 4, requires_grad=True)
    text = torch.randn(30, 2, 8, requires_grad=True)
    full = cost_volume(image, text)
    for chunk in (1, 24 * 7, 1 << 20):
        best = max_similarity(image, text, chunk)
        torch.testing.assert_close(best, full.amax((2, 3, 4)))
        assert not best.requires_grad
    classes = top_classes(best, 5)
    rows = torch.arange(2)[:, None]
    weights = torch.randn(2, 5, 2, 3, 4)
    expected = torch.autograd.grad((full[rows, classes] * weights).sum(), (image, text))
    volume, kept_text, kept_classes = top_cost_volume(image, text, 5)
    assert torch.equal(kept_classes, classes) and torch.equal(kept_text, text[classes])
    torch.testing.assert_close(volume, full[rows, classes])
    actual = torch.autograd.grad((volume * weights).sum(), (image, text))
    torch.testing.assert_close(actual, expected)
    for limit in (0, 30, 31):
        volume, kept_text, kept_classes = top_cost_volume(image, text, limit)
        assert kept_classes is None and torch.equal(volume, full) and kept_text.shape[0] == 1


def test_augmentation_needs_the_maps_of_all_classes(model):
    wrapper = OpenVocabTTAModel(module=model)
    images = [torch.randint(0, 256, (3, 60, 50)) for _ in range(2)]
    metas = [
        dict(ori_shape=(60, 50), img_path='a.png', flip=flip, flip_direction='horizontal')
        for flip in (False, True)
    ]
    data = dict(
        inputs=[[image] for image in images],
        data_samples=[[SegDataSample(metainfo=meta)] for meta in metas],
    )
    with torch.no_grad():
        assert wrapper.test_step(data)[0].pred_sem_seg.data.shape == (1, 60, 50)
        model.test_cfg['max_dense_classes'] = 20
        with pytest.raises(ValueError, match='at most 20 classes, got 21'):
            wrapper.test_step(data)


@pytest.mark.parametrize('mode', ['slide', 'windows', 'whole'])
def test_memory_does_not_grow_with_the_vocabulary(model, mode):
    """No tensor of the size of (words, pixels) is made at inference."""
    model.test_cfg['mode'] = mode
    words = 5000
    model.set_vocabulary([f'word {i}' for i in range(words)])
    text = torch.nn.functional.normalize(torch.randn(words, 1, 32), dim=-1)
    model.backbone.embed_prompts = lambda prompts: text
    largest = 0

    class Watch(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            nonlocal largest
            out = function(*args, **(kwargs or {}))
            if isinstance(out, torch.Tensor):
                largest = max(largest, out.numel())
            return out

    with torch.no_grad(), Watch():
        (result,) = model.predict(torch.randn(1, 3, 60, 50))
    assert result.pred_sem_seg.data.max() > 0
    assert largest < (1 << 22) + 1 < words * 60 * 50
