"""Every family of models on fake tensors of a GPU: nothing is left on the CPU, nothing waits."""

from __future__ import annotations

import copy

import convnext
import pytest
import torch
from mmengine.structures import PixelData
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample
from rehearsal import Synchronisations, batch, on_fake_gpu, pack_vocabulary
from torch._subclasses.fake_tensor import DataDependentOutputException, DynamicOutputShapeException
from toys import RECOMPUTES

from infoclip_mmseg.models.data_preprocessor import OpenVocabDataPreProcessor
from infoclip_mmseg.models.layers.guided_attention import cut_windows
from infoclip_mmseg.models.text import packing

RESNET = dict(
    type='ResNet',
    depth=18,
    stem_channels=8,
    base_channels=8,
    num_stages=3,
    strides=(1, 2, 2),
    dilations=(1, 1, 1),
    out_indices=(0, 1, 2),
    norm_cfg=dict(type='BN', requires_grad=True),
    norm_eval=True,
)
SELECTS = dict(num_decoded=3, num_decoded_train=2)
CONVNEXT = dict(model_name=copy.deepcopy(convnext.CONVNEXT), out_blocks=None, finetune='trunk')
LOSSES = [
    dict(type='KLDistillationLoss'),
    dict(type='SelfDistillationLoss'),
    dict(type='RepresentationCompensationLoss'),
    dict(type='CauchySchwarzLoss'),
]
HEADS = {'cosine': dict(type='CosineHead'), 'zero-shot': dict(type='ZeroShotHead')}
FAMILIES = {
    'CAT-Seg': dict(),
    'CAT-Seg, recomputing': dict(backbone=dict(with_cp=True), decode_head=dict(with_cp=True)),
    'CAT-Seg, recomputing between products': dict(
        backbone=dict(with_cp=RECOMPUTES[-1]), decode_head=dict(with_cp=RECOMPUTES[-1])
    ),
    'CAT-Seg, no padding': dict(decode_head=dict(pad_len=0, pooling_size=1)),
    'CAT-Seg, windows': dict(test_cfg=dict(mode='windows', stride=24)),
    'CAT-Seg, whole': dict(test_cfg=dict(mode='whole')),
    'CAT-Seg on ConvNeXt': dict(backbone=CONVNEXT, input_size=64),
    'CAT-Seg guided': dict(
        guidance=dict(type='AppearanceGuidance', backbone=RESNET),
        decode_head=dict(guidance_channels=(32, 16, 8)),
    ),
    'other losses': dict(loss_distill=LOSSES),
    'InfoCLIP': dict(distill=True),
    'InfoCLIP, selected classes': dict(distill=True, decode_head=SELECTS),
    'InfoCLIP, many classes': dict(distill=True, decode_head=dict(pad_len=4)),
}
PICKS = ('InfoCLIP, selected classes', 'InfoCLIP, many classes')
"""Of which the host has to know what classes each image took, once an image."""
WORDS = [f'thing {index}' for index in range(6)]
SIZE = (48, 72)


@pytest.fixture(autouse=True)
def no_fake_tensors_are_kept():
    cut_windows.cache_clear()
    yield
    cut_windows.cache_clear()


@pytest.fixture
def build(toy):
    """Builder of models that have run on a CPU: ``build(family)``."""

    def build(family: str):
        return started(toy(**copy.deepcopy(FAMILIES[family])))

    return build


def started(model, size=SIZE, trains: bool = True):
    """The model with words, and a teacher where it needs one, after a step of each kind."""
    model.set_vocabulary(WORDS)
    if model.distiller.needs_teacher:
        model.distiller.attach_teacher()
    if trains:
        train(model, size)
    infer(model, size)
    return model


def train(model, size=SIZE, device: str = 'cpu'):
    model.train()
    total, _ = model.parse_losses(model.loss(*batch(size, len(WORDS), device)))
    assert total.device.type == device
    return total


@torch.no_grad()
def infer(model, size=SIZE, device: str = 'cpu') -> None:
    model.eval()
    for sample in model.predict(*batch(size, len(WORDS), device)):
        for result in (sample.seg_logits, sample.pred_sem_seg, sample.pred_probability):
            assert result.data.device.type == device


@torch.no_grad()
def decode_views(model, size=SIZE, device: str = 'cpu') -> None:
    model.eval()
    for views in model._inference.views(batch(size, len(WORDS), device)[0], 'slide'):
        assert views.logits.device.type == views.classes.device.type == device


def rehearse(model, monkeypatch, *steps) -> Synchronisations:
    """What waits for the GPU in steps that have run there once."""
    with on_fake_gpu(model, monkeypatch) as counted:
        for step in steps:
            step(model, device='cuda')
        counted.found.clear()
        for step in steps:
            step(model, device='cuda')
    return counted


@pytest.mark.parametrize('family', FAMILIES)
def test_nothing_is_on_the_cpu_and_nothing_waits(build, monkeypatch, family):
    steps = (train, decode_views if family in PICKS else infer)
    assert not rehearse(build(family), monkeypatch, *steps).found


@pytest.mark.parametrize('head', HEADS)
def test_heads_without_weights(toy_cfg, monkeypatch, head):
    config = toy_cfg(test_cfg=dict(mode='windows', stride=24))
    config['decode_head'] = HEADS[head]
    model = started(MODELS.build(config), trains=False)
    assert not rehearse(model, monkeypatch, infer).found


@pytest.mark.parametrize('frozen', [False, True])
def test_mask_models(toy_cfg, monkeypatch, frozen):
    """MAFT+, FC-CLIP. Training up to the losses, for which masks are matched on the CPU."""
    config = toy_cfg(
        **convnext.mask_config(backbone=dict(finetune='frozen' if frozen else 'trunk'))
    )
    ensemble = dict(ensemble=dict(alpha=0.4, beta=0.8, seen=WORDS[:2])) if frozen else {}
    config['decode_head'] = {**convnext.MASKS, **ensemble}
    model = started(MODELS.build(config), (64, 96))

    def run_training(model, device):
        model.train()
        model.decode_head.proposals.eval()  # transformers looks for overflow in training
        features = model.extract_feat(batch((64, 96), len(WORDS), device)[0])
        classes, masks = model.decode_head.classify(features, model.embed_vocabulary())
        assert classes.device.type == masks.device.type == device

    def run_inference(model, device):
        infer(model, (64, 96), device)

    found = rehearse(model, monkeypatch, run_training, run_inference).found
    # What is left is in transformers, which tells its attention the sizes of the grids.
    assert {place.split('(')[0] for _, place in found} == {
        'mask2former.py: pixels = self.pixel_decoder'
    }


@pytest.mark.parametrize('family', FAMILIES)
def test_a_step_with_its_gradients_reads_no_value(build, monkeypatch, family):
    """On a CPU, but for what the host works on there: prompts, label maps, lists of classes."""
    model = build(family)
    step = decode_views if family in PICKS else infer
    packed = pack_vocabulary(model)
    monkeypatch.setattr(packing, 'pack_prompts', lambda *_: packed)
    monkeypatch.setattr('infoclip_mmseg.models.segmentors.open_vocab.check_labels', lambda *a: None)
    monkeypatch.setattr('infoclip_mmseg.losses.task._refuse', lambda *a: None)
    with Synchronisations() as counted:
        train(model).backward()
        step(model)
    assert not counted.found


@pytest.mark.parametrize('wait', [lambda x: x.max().item(), lambda x: x[x > 0], lambda x: x.cpu()])
def test_the_rehearsal_finds_what_waits(build, monkeypatch, wait):
    model = build('CAT-Seg')
    decode = model.decode_head.decode

    def waiting(features, text):
        wait(features.dense)
        return decode(features, text)

    monkeypatch.setattr(model.decode_head, 'decode', waiting)
    with Synchronisations() as counted:
        train(model)
    on_cpu = counted.found
    try:
        found = rehearse(model, monkeypatch, train).found
    except (DataDependentOutputException, DynamicOutputShapeException):
        assert on_cpu
    else:
        assert [name for name, _ in found] == ['_to_copy']


def test_a_tensor_left_on_the_cpu_fails(build, monkeypatch):
    model = build('CAT-Seg')
    decode = model.decode_head.decode

    def mixing(features, text):
        return decode(features, text + torch.zeros(32))

    monkeypatch.setattr(model.decode_head, 'decode', mixing)
    with pytest.raises(RuntimeError, match='cpu'):
        rehearse(model, monkeypatch, train)


def test_labels_are_checked_on_their_way_to_a_gpu(toy):
    model = toy()
    model.set_vocabulary(WORDS)
    preprocessor = model.data_preprocessor
    assert isinstance(preprocessor, OpenVocabDataPreProcessor)
    assert preprocessor.label_range == (6, 255)
    labels = torch.full((1, 48, 48), 6)
    meta = dict(seg_map_path='a.png')
    sample = SegDataSample(gt_sem_seg=PixelData(data=labels), metainfo=meta)
    data = dict(inputs=[torch.zeros(3, 48, 48, dtype=torch.uint8)], data_samples=[sample])
    preprocessor._device = torch.device('cuda')
    with pytest.raises(ValueError, match='label map a.png has values from 6 to 6'):
        preprocessor(data, True)
