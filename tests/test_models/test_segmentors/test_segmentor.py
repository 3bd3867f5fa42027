"""OpenVocabSegmentor: vocabulary, inference of any size, mmseg's APIs, bad input."""

from __future__ import annotations

import copy

import mmcv
import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.structures import PixelData
from mmseg.apis import MMSegInferencer, inference_model, init_model
from mmseg.structures import SegDataSample

from infoclip_mmseg.models import FrozenTeacher
from infoclip_mmseg.models.views.windows import window_corners

WORDS = ['wall', 'sky, heaven', 'tree']


@pytest.fixture
def model(toy):
    model = toy().eval()
    model.set_vocabulary(WORDS)
    return model


def samples(batch: int, classes: int, size: tuple[int, int]) -> list[SegDataSample]:
    labels = torch.randint(0, classes, (batch, 1, *size))
    return [SegDataSample(gt_sem_seg=PixelData(data=label)) for label in labels]


@pytest.mark.parametrize('mode', ['slide', 'whole'])
@pytest.mark.parametrize('size', [(33, 70), (120, 40), (8, 8)])
def test_segment_any_size_and_batch(model, mode, size):
    images = torch.randint(0, 256, (2, 3, *size))
    out = model.segment(images, mode=mode)
    assert out.shape == (2, 3, 80, 80) if mode == 'slide' else (2, 3, 24, 24)
    alone = torch.cat([model.segment(image[None], mode=mode) for image in images])
    torch.testing.assert_close(out, alone, rtol=1e-4, atol=1e-4)
    if mode == 'slide':
        assert out.min() >= 0 and out.max() <= 1


def test_non_square_input_and_working_size(toy):
    model = toy(input_size=(32, 48), test_cfg=dict(size=(50, 90), window=(32, 48))).eval()
    assert model.segment(torch.zeros(1, 3, 20, 30), WORDS).shape == (1, 3, 50, 90)
    assert model.segment(torch.zeros(1, 3, 20, 30), WORDS, mode='whole').shape == (1, 3, 16, 24)


@pytest.mark.parametrize('size', [(48, 48), (100, 131), (49, 300)])
def test_windows_cover_everything(size):
    corners = window_corners(size, (48, 48), (32, 32))
    covered = np.zeros(size)
    for top, left in corners:
        assert top + 48 <= size[0] and left + 48 <= size[1]
        covered[top : top + 48, left : left + 48] += 1
    assert covered.min() >= 1


def test_words_for_one_call_leave_the_vocabulary_alone(model):
    image = torch.rand(1, 3, 40, 50) * 255
    before = model.segment(image)
    other = model.segment(image, classes=['sea', 'cat', 'dog'])
    assert not torch.allclose(before, other, atol=1e-5)
    assert torch.equal(model.segment(image), before)
    assert model.dataset_meta['classes'] == tuple(WORDS)
    model.train()
    torch.testing.assert_close(model.segment(image), before)
    assert model.training


def test_vocabulary_sets_names_colours_and_channels(model):
    model.set_vocabulary(['a', 'b'], palette=[[1, 2, 3], [4, 5, 6]])
    assert model.dataset_meta == dict(classes=('a', 'b'), palette=[[1, 2, 3], [4, 5, 6]])
    assert model.out_channels == 2
    model.dataset_meta = dict(classes=('x', 'y', 'z'), palette=None)
    assert model.out_channels == 3 and len(model.dataset_meta['palette']) == 3
    assert model.prompts.texts[0] == 'A photo of a x in the scene'


@pytest.mark.parametrize(
    ('names', 'error'), [([], ValueError), ('cat', TypeError), (['a', ' '], ValueError)]
)
def test_bad_vocabulary(model, names, error):
    with pytest.raises(error):
        model.set_vocabulary(names)


def test_no_vocabulary(toy):
    with pytest.raises(RuntimeError, match='set_vocabulary'):
        toy().segment(torch.zeros(1, 3, 32, 32))


def test_batch_of_different_sizes_equals_single_images(model):
    sizes = [(40, 60), (64, 48)]
    images = [torch.randint(0, 256, (3, *size), dtype=torch.uint8) for size in sizes]

    def run(indices):
        data = dict(
            inputs=[images[i] for i in indices],
            data_samples=[SegDataSample(metainfo=dict(ori_shape=sizes[i])) for i in indices],
        )
        with torch.no_grad():
            return model.test_step(data)

    for index, result in enumerate(run([0, 1])):
        alone = run([index])[0]
        assert result.pred_sem_seg.shape == sizes[index]
        assert torch.allclose(result.seg_logits.data, alone.seg_logits.data, atol=1e-5)


def test_flip_is_undone_and_one_class_is_thresholded(model):
    image = torch.randn(1, 3, 40, 40)
    plain = model.predict(image)[0].seg_logits.data
    meta = dict(ori_shape=(40, 40), flip=True, flip_direction='horizontal')
    flipped = model.predict(image, [SegDataSample(metainfo=meta)])[0]
    torch.testing.assert_close(flipped.seg_logits.data, plain.flip(2))
    model.set_vocabulary(['one'])
    result = model.predict(image)[0]
    none = result.seg_logits.data <= model.decode_head.threshold
    assert torch.equal(result.pred_sem_seg.data, none.long() * 255)


@pytest.mark.parametrize('dtype', [None, torch.bfloat16])
def test_distilled_training_step(toy, dtype):
    if dtype is not None and not hasattr(torch, 'get_autocast_dtype'):
        pytest.skip('bfloat16 attention of torch 2.1 writes out of bounds on a CPU')
    model = toy(distill=True).train()
    model.set_vocabulary([f'word {i}' for i in range(12)])
    model.teacher = FrozenTeacher.from_student(model.backbone)
    images = torch.randn(2, 3, 48, 48)
    with torch.autocast('cpu', dtype=dtype, enabled=dtype is not None):
        losses = model(images, samples(2, 12, (48, 48)), mode='loss')
    assert set(losses) == {'decode.loss_seg', 'loss_ib', 'loss_mi'}
    sum(losses.values()).backward()
    unused = 'backbone.clip.visual.transformer.resblocks.3.attn.q_proj_weight'
    padding = 'padding_'  # 12 classes are more than pad_len: nothing is padded
    for name, parameter in model.named_parameters():
        trained = parameter.grad is not None and parameter.grad.abs().sum() > 0
        assert trained == (parameter.requires_grad and name != unused and padding not in name), name
    assert all(p.grad is None for p in model.teacher.encoder.parameters())


RIVALS = {
    'KL': dict(loss_distill=[dict(type='KLDistillationLoss', temperature=0.01)]),
    'MAFT': dict(loss_distill=[dict(type='SelfDistillationLoss')]),
    'MAFT+': dict(loss_distill=[dict(type='RepresentationCompensationLoss')]),
    'cost-volume MI': dict(loss_distill=[dict(type='MITransferLoss')]),
    'LPAM + KL': dict(neck=dict(type='LPAM'), loss_distill=[dict(type='KLDistillationLoss')]),
}


@pytest.mark.parametrize('name', RIVALS)
@pytest.mark.parametrize('classes', [2, 12])
def test_training_step_with_another_distillation(toy, name, classes):
    model = toy(input_size=(32, 48), **RIVALS[name]).train()
    model.set_vocabulary([f'word {i}' for i in range(classes)])
    model.teacher = FrozenTeacher.from_student(model.backbone)
    images, labels = torch.randn(2, 3, 40, 48), samples(2, classes, (40, 48))
    [key] = {'loss_kl', 'loss_sd', 'loss_rc', 'loss_mi'} & set(model(images, labels, mode='loss'))
    with torch.no_grad():
        for parameter in model.backbone.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn_like(parameter), alpha=0.02)
    losses = model(images, labels, mode='loss')
    losses[key].backward()
    trained = {n for n, p in model.named_parameters() if p.grad is not None and p.grad.any()}
    towers = {'.'.join(n.split('.')[:3]) for n in trained}
    expected = {'backbone.clip.visual'}
    if key in ('loss_kl', 'loss_mi'):
        expected.add('backbone.clip.transformer')
    if 'neck' in RIVALS[name]:
        expected |= {f'neck.{part}.weight' for part in ('query_proj', 'key_proj')}
    assert expected <= towers
    assert not any(n.startswith('decode_head') for n in trained)
    assert all(p.grad is None for p in model.teacher.encoder.parameters())
    if key != 'loss_mi':
        one = model(images[:1], labels[:1], mode='loss')[key]
        assert one.isfinite() and one.item() != pytest.approx(losses[key].item(), rel=1e-4)


@pytest.mark.parametrize('name', ['KL', 'MAFT', 'MAFT+', 'LPAM + KL'])
def test_distillation_costs_nothing_before_the_student_moves(toy, name):
    model = toy(**RIVALS[name]).eval()
    model.set_vocabulary(WORDS)
    model.teacher = FrozenTeacher.from_student(model.backbone)
    losses = model(torch.randn(2, 3, 48, 48), samples(2, 3, (48, 48)), mode='loss')
    [value] = [losses[k] for k in losses if k.startswith('loss_')]
    assert value.item() == pytest.approx(0, abs=1e-6)


def test_a_loss_may_be_named_in_either_way(toy):
    losses = dict(loss_ib=dict(type='InfoBottleneckLoss'), loss_mi=dict(type='MITransferLoss'))
    results = []
    for config in (losses, dict(loss_distill=list(losses.values()))):
        model = toy(neck=dict(type='LPAM'), **config).train()
        model.set_vocabulary(WORDS)
        model.teacher = FrozenTeacher.from_student(model.backbone)
        torch.manual_seed(1)
        results.append(model(torch.randn(2, 3, 48, 48), samples(2, 3, (48, 48)), mode='loss'))
    assert results[0] == results[1]


def test_a_distillation_loss_needs_a_teacher(toy):
    model = toy(**RIVALS['MAFT']).train()
    model.set_vocabulary(WORDS)
    with pytest.raises(RuntimeError, match='FrozenTeacherHook'):
        model(torch.randn(1, 3, 48, 48), samples(1, 3, (48, 48)), mode='loss')


def test_save_and_load(model, toy, tmp_path):
    torch.save(model.state_dict(), tmp_path / 'model.pth')
    other = toy(seed=5).eval()
    other.set_vocabulary(WORDS)
    image = torch.rand(1, 3, 40, 50) * 255
    assert not torch.allclose(other.segment(image), model.segment(image), atol=1e-4)
    other.load_state_dict(torch.load(tmp_path / 'model.pth', weights_only=True))
    assert torch.equal(other.segment(image), model.segment(image))


@pytest.fixture
def inference_setup(toy_cfg, toy, tmp_path):
    """Config and checkpoint for mmseg's inference functions."""
    pipeline = [dict(type='LoadImageFromFile'), dict(type='LoadAnnotations')]
    pipeline.append(dict(type='PackSegInputs'))
    config = Config(
        dict(
            default_scope='mmseg',
            model=toy_cfg(),
            test_pipeline=pipeline,
            test_dataloader=dict(dataset=dict(type='ADE20KDataset', pipeline=pipeline)),
            visualizer=dict(type='SegLocalVisualizer'),
        )
    )
    state = toy(seed=3).state_dict()
    meta = dict(dataset_meta=dict(classes=tuple(WORDS), palette=[[0, 0, 9], [0, 9, 0], [9, 0, 0]]))
    path = tmp_path / 'checkpoint.pth'
    torch.save(dict(state_dict=state, meta=meta), path)
    return config, str(path)


def test_init_model_and_inference_model(inference_setup, ade_root):
    config, checkpoint = inference_setup
    model = init_model(copy.deepcopy(config), checkpoint, device='cpu')
    assert model.dataset_meta['classes'] == tuple(WORDS)
    paths = sorted(str(p) for p in (ade_root / 'images/validation').iterdir())[:2]
    results = inference_model(model, paths)
    for path, result in zip(paths, results):
        assert result.pred_sem_seg.shape == mmcv.imread(path).shape[:2]
    array = inference_model(model, mmcv.imread(paths[0]))
    assert torch.equal(array.pred_sem_seg.data, results[0].pred_sem_seg.data)


def test_mmseg_inferencer(inference_setup, ade_root, tmp_path):
    config, checkpoint = inference_setup
    inferencer = MMSegInferencer(config, checkpoint, device='cpu')
    path = str(ade_root / 'images/validation/ADE_val_00000001.jpg')
    inferencer.model.set_vocabulary(['floor', 'person', 'car', 'cat'])
    out = inferencer([path, path], batch_size=2, out_dir=str(tmp_path / 'out'), return_vis=True)
    assert out['predictions'][0].shape == mmcv.imread(path).shape[:2]
    assert inferencer.visualizer.dataset_meta['classes'] == ('floor', 'person', 'car', 'cat')
    assert len(list((tmp_path / 'out/vis').iterdir())) > 0


def test_labels_outside_the_vocabulary(toy):
    model = toy().train()
    model.set_vocabulary([f'word {i}' for i in range(150)])
    bad = samples(2, 150, (48, 48))
    bad[1].gt_sem_seg.data[0, 0, 0] = 200
    bad[1].set_metainfo(dict(seg_map_path='labels/b.png', ori_shape=(48, 48)))
    for mode in ('loss', 'predict'):
        with pytest.raises(ValueError, match=r'labels/b.png has values .*200.* 150 names'):
            model(torch.randn(2, 3, 48, 48), bad, mode=mode)


@pytest.mark.parametrize('size', [(7, 40), (40, 3)])
def test_image_smaller_than_a_patch(model, size):
    with pytest.raises(ValueError, match='smaller than one patch of 8 x 8'):
        model.segment(torch.zeros(1, 3, *size))
    sample = SegDataSample(metainfo=dict(ori_shape=size, img_path='tiny.png'))
    with pytest.raises(ValueError, match='tiny.png'):
        model.predict(torch.zeros(1, 3, 80, 80), [sample])


def test_bad_arguments(model, toy):
    with pytest.raises(ValueError, match='mode must be one of'):
        model.segment(torch.zeros(1, 3, 32, 32), mode='sliding')
    with pytest.raises(ValueError, match=r'\(B, 3, h, w\)'):
        model.segment(torch.zeros(3, 32, 32))
    with pytest.raises(ValueError, match='set neck'):
        toy(loss_mi=dict(type='MITransferLoss'))


@torch.no_grad()
def test_views_of_the_images_own_ratio(toy):
    """The shorter side as said: a view a window less than of a square, and the same as by hand."""
    images = torch.randint(0, 256, (2, 3, 60, 80)).float()
    model = toy(test_cfg=dict(mode='slide', size=48, window=48, keep_ratio=True)).eval()
    seen = []
    decode = model.decode_head.decode
    model.decode_head.decode = lambda f, text: seen.append(len(f.dense)) or decode(f, text)
    kept = model.segment(images, ['cat', 'dog', 'sky'], mode='slide')
    assert kept.shape == (2, 3, 48, 64)
    assert sum(seen) == 2 * (2 + 1)
    model.test_cfg.update(keep_ratio=False, size=(48, 64))
    assert torch.equal(model.segment(images, ['cat', 'dog', 'sky'], mode='slide'), kept)
    upright = images.transpose(-1, -2)
    model.test_cfg.update(keep_ratio=True, size=48)
    assert model.segment(upright, ['cat', 'dog', 'sky'], mode='slide').shape == (2, 3, 64, 48)
    with pytest.raises(ValueError, match=r'shorter side in pixels, got \(48, 64\)'):
        toy(test_cfg=dict(size=(48, 64), keep_ratio=True))
