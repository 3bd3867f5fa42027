"""A vocabulary of one word: label 0 where it is, no label elsewhere, in every way to a label."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from mmengine.structures import PixelData
from mmseg.structures import SegDataSample

from infoclip_mmseg.engine import VocabularyHook
from infoclip_mmseg.evaluation import OpenVocabIoUMetric, SeenUnseenIoUMetric
from infoclip_mmseg.models import CATSegHead, OpenVocabTTAModel

MEND = r'one class, .cat.*label_map=\{0: 0, 255: 1\}'


@pytest.fixture
def model(toy):
    """With a threshold that about half of the pixels pass."""
    model = toy().eval()
    model.set_vocabulary(['cat'])
    with torch.no_grad():
        probability = model.label(torch.linspace(0, 255, 3 * 64 * 48).view(1, 3, 64, 48))[1]
    model.decode_head.threshold = float(probability.median())
    return model


@pytest.fixture
def image():
    return torch.linspace(0, 255, 3 * 64 * 48).view(1, 3, 64, 48)


def expected_labels(model, probability: torch.Tensor) -> torch.Tensor:
    return torch.where(probability > model.decode_head.threshold, 0, 255)


@torch.no_grad()
def test_predict_and_label_say_the_same(model, image):
    for mode in ('slide', 'windows', 'whole'):
        model.test_cfg.update(mode=mode, stride=24)
        labels, probability = model.label(image, mode=mode)
        assert torch.equal(labels, expected_labels(model, probability))
        inputs = (image - model.data_preprocessor.mean) / model.data_preprocessor.std
        (sample,) = model.predict(inputs)
        assert torch.equal(sample.pred_sem_seg.data, labels)
        torch.testing.assert_close(sample.seg_logits.data, probability)
    assert set(labels.unique().tolist()) == {0, 255}


@torch.no_grad()
def test_augmented(model, image):
    metas = [dict(ori_shape=(64, 48), img_path='a', flip_direction='horizontal')] * 2
    metas = [dict(meta, flip=flip) for meta, flip in zip(metas, (False, True))]
    flips = [image[0], image[0].flip(-1)]
    copies = [
        model.predict(
            ((flip - model.data_preprocessor.mean) / model.data_preprocessor.std)[None],
            [SegDataSample(metainfo=meta)],
        )[0]
        for flip, meta in zip(flips, metas)
    ]
    maps = torch.stack([copy.seg_logits.data for copy in copies]).mean(dim=0)
    (merged,) = OpenVocabTTAModel(module=model).merge_preds([copies])
    torch.testing.assert_close(merged.pred_probability.data, maps)
    assert torch.equal(merged.pred_sem_seg.data, expected_labels(model, maps))


def test_augmentation_knows_a_heads_background(toy):
    model = toy(decode_head=dict(type='ZeroShotHead', threshold=0.6), test_cfg=dict(mode='whole'))
    model.set_vocabulary(['background', 'cat', 'dog'])
    maps = torch.tensor([[0.1, 0.2], [0.7, 0.5], [0.2, 0.3]])[:, None]
    copies = [SegDataSample(seg_logits=PixelData(data=m)) for m in (maps, maps.clone())]
    (merged,) = OpenVocabTTAModel(module=model).merge_preds([copies])
    assert merged.pred_sem_seg.data.tolist() == [[[1, 0]]]


def test_training_takes_what_has_no_label_for_something_else(model):
    assert isinstance(model.decode_head, CATSegHead)
    logits = torch.zeros(1, 1, 2, 2, requires_grad=True)
    labels = torch.tensor([[[0, 255], [255, 255]]])
    model.decode_head.loss_by_feat(logits, labels)['loss_seg'].backward()
    assert (logits.grad[0, 0].sign() == torch.tensor([[-1, 1], [1, 1]])).all()


class OneClass:
    metainfo = dict(classes=['cat'], palette=[[1, 2, 3]])


@pytest.mark.parametrize('loop', ['train', 'val', 'test'])
def test_data_sets_of_one_class_are_refused(model, loop):
    runner = type('Runner', (), {'model': model})()
    setattr(runner, f'{loop}_dataloader', type('Loader', (), {'dataset': OneClass()})())
    with pytest.raises(ValueError, match='OneClass has ' + MEND):
        getattr(VocabularyHook(), f'before_{loop}')(runner)


def test_their_figures_too(tmp_path):
    metric = OpenVocabIoUMetric()
    metric.dataset_meta = OneClass.metainfo
    maps = dict(data=torch.from_numpy(np.zeros((1, 2, 2), np.int64)))
    with pytest.raises(ValueError, match=MEND):
        metric.process({}, [dict(pred_sem_seg=maps, gt_sem_seg=maps)])
    with pytest.raises(ValueError, match=MEND):
        SeenUnseenIoUMetric(seen=['cat']).dataset_meta = OneClass.metainfo
