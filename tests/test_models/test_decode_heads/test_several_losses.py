"""loss_decode as a list, as in mmseg's heads: a sum, one key for each name."""

from __future__ import annotations

import torch
import torch.nn.functional as F

BCE = dict(type='CATSegBCELoss', loss_weight=2.0)
WEIGHTED = dict(type='CATSegBCELoss', class_weight=[1, 5, 1])
DICE = dict(type='DiceLoss', use_sigmoid=False, loss_name='loss_dice')


def losses(toy, loss_decode, logits, labels):
    head = toy(decode_head=dict(loss_decode=loss_decode)).decode_head
    return head.loss_by_feat(logits, labels)


def test_each_name_has_a_key_and_equal_names_are_added(toy):
    logits = torch.randn(2, 3, 6, 5)
    labels = torch.randint(0, 3, (2, 12, 10))
    got = losses(toy, [BCE, DICE, WEIGHTED], logits, labels)
    assert list(got) == ['loss_seg', 'loss_dice']
    alone = [losses(toy, config, logits, labels) for config in (BCE, WEIGHTED, DICE)]
    torch.testing.assert_close(got['loss_seg'], alone[0]['loss_seg'] + alone[1]['loss_seg'])
    torch.testing.assert_close(got['loss_dice'], alone[2]['loss_dice'])
    larger = F.interpolate(logits, (12, 10), mode='bilinear', align_corners=False)
    targets = F.one_hot(labels, 3).movedim(-1, 1).float()
    expected = 2 * F.binary_cross_entropy_with_logits(larger, targets)
    torch.testing.assert_close(alone[0]['loss_seg'], expected)


def test_a_list_of_one_is_that_loss(toy):
    logits, labels = torch.randn(1, 3, 4, 4), torch.randint(0, 3, (1, 8, 8))
    assert losses(toy, [BCE], logits, labels) == losses(toy, BCE, logits, labels)


def test_a_model_trains_with_a_list(toy):
    from mmengine.structures import PixelData
    from mmseg.structures import SegDataSample

    model = toy(decode_head=dict(loss_decode=[BCE, DICE])).train()
    model.set_vocabulary(['wall', 'sky', 'tree'])
    sample = SegDataSample(gt_sem_seg=PixelData(data=torch.randint(0, 3, (1, 48, 48))))
    got = model.loss(torch.randn(1, 3, 48, 48), [sample])
    assert set(got) == {'decode.loss_seg', 'decode.loss_dice'}
    sum(got.values()).backward()
    assert model.decode_head.conv_seg.weight.grad.abs().sum() > 0
    plain = toy(decode_head=dict(loss_decode=BCE))
    assert model.state_dict().keys() == plain.state_dict().keys()
