"""The full-size ViT-B/16 model of the configs, with random weights: what trains, and only that."""

from __future__ import annotations

import pytest
import torch
from mmengine.config import Config
from mmengine.structures import PixelData
from mmseg.datasets import ADE20KDataset
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample

from infoclip_mmseg.models import FrozenTeacher

SIDE = 64  # the real 384 takes two minutes; the tensors are the same ones


@pytest.fixture
def stepped(request):
    """The model after one backward pass of all three losses, and these losses."""
    config = Config.fromfile(f'{request.config.rootpath}/configs/infoclip_vitb16_ade20k.py').model
    config.backbone.pretrained = None
    config.data_preprocessor.size = (SIDE, SIDE)
    config.input_size = SIDE
    torch.manual_seed(0)
    model = MODELS.build(config).train()
    model.set_vocabulary(ADE20KDataset.METAINFO['classes'])
    model.teacher = FrozenTeacher.from_student(model.backbone)
    labels = torch.randint(0, 150, (2, 1, SIDE, SIDE))
    samples = [SegDataSample(gt_sem_seg=PixelData(data=label)) for label in labels]
    losses = model(torch.randn(2, 3, SIDE, SIDE), samples, mode='loss')
    sum(losses.values()).backward()
    return model, losses


@pytest.mark.slow
def test_gradients_reach_exactly_what_trains(stepped):
    model, losses = stepped
    assert set(losses) == {'decode.loss_seg', 'loss_ib', 'loss_mi'}
    assert all(torch.isfinite(loss) for loss in losses.values())
    reached = {n for n, p in model.named_parameters() if p.grad is not None and p.grad.any()}
    towers = ('visual.transformer', 'transformer')
    clip = {
        f'backbone.clip.{tower}.resblocks.{block}.attn.{letter}_proj_weight'
        for tower in towers
        for block in range(12)
        for letter in 'qv'
    }
    unused = {'backbone.clip.visual.transformer.resblocks.11.attn.q_proj_weight'}
    rest = {n for n, _ in model.named_parameters() if not n.startswith('backbone.')}
    assert {n for n, p in model.named_parameters() if p.requires_grad} == clip | rest
    assert reached == (clip | rest) - unused
