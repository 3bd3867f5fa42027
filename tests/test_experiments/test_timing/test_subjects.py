from __future__ import annotations

import time

import pytest
import torch

from infoclip_mmseg.experiments.timing import subjects
from infoclip_mmseg.experiments.timing.bench import Bench, SkippedError, TimingError
from infoclip_mmseg.experiments.timing.measure import group_of, profile_operators
from infoclip_mmseg.experiments.timing.subjects import SUBJECTS
from infoclip_mmseg.models.backbones.dual_encoder import CLIPDualEncoder

OTHERS = ('profile_train', 'profile_inference', 'evaluation', 'loading', 'prepare')
TIMED = [name for name in SUBJECTS if name not in OTHERS]


@pytest.fixture(autouse=True)
def small(monkeypatch):
    monkeypatch.setattr(subjects, 'ENTROPY_SAMPLES', 16)
    monkeypatch.setitem(subjects.MATRIX_SIDE, 'cpu', 32)


@pytest.mark.parametrize('part', TIMED)
def test_every_part_fills_its_main_section(run_part, part):
    _, seconds = run_part(part)
    assert seconds[SUBJECTS[part].section][0] > 0
    assert all(len(values) == 1 for values in seconds.values())


def test_a_training_step_is_forward_backward_and_optimizer(run_part):
    bench, seconds = run_part('train')
    parts = [seconds[name][0] for name in ('forward', 'backward', 'optimizer')]
    assert seconds['step'][0] >= sum(parts) > 0.9 * seconds['step'][0]
    assert bench.images == 2
    assert 0 < bench.info['trained'] < bench.info['parameters']


def test_training_changes_the_weights_and_uses_the_teacher(toy_setting, monkeypatch):
    built = []
    build = Bench.taught_model
    monkeypatch.setattr(Bench, 'taught_model', lambda self: built.append(build(self)) or built[-1])
    call = SUBJECTS['train'].make(Bench(toy_setting('train')))
    model = built[0]
    before = model.neck.query_proj.weight.clone()
    call()
    assert not torch.equal(before, model.neck.query_proj.weight)
    assert model.teacher is not None


def test_a_slower_image_tower_makes_its_parts_slower_and_no_others(run_part, monkeypatch):
    def seconds() -> list[float]:
        parts = ('image', 'inference', 'losses')
        return [run_part(part)[1][SUBJECTS[part].section][0] for part in parts]

    seconds()  # the first calls of a process are slow
    quick = seconds()
    encode = CLIPDualEncoder.encode_image

    def slow(self, images):
        time.sleep(1.0)
        return encode(self, images)

    monkeypatch.setattr(CLIPDualEncoder, 'encode_image', slow)
    image, inference, losses = (new - old for new, old in zip(seconds(), quick))
    assert image > 0.7 and inference > 0.7 > losses


@pytest.mark.parametrize('part', ['train_plain', 'teacher', 'lpam'])
def test_without_a_neck_there_is_nothing_to_distil(run_part, part):
    with pytest.raises(SkippedError, match='neck|nothing is distilled'):
        run_part(part, distill=False)


def test_losses_without_a_neck_have_a_teacher_too(run_part):
    model = dict(loss_distill=[dict(type='MITransferLoss')])
    for part in ('train', 'train_plain', 'teacher'):
        run_part(part, distill=False, model=model)
    assert 'loss_mi' in run_part('losses', distill=False, model=model)[1]


def test_losses_of_a_model_without_neck_are_the_task_loss(run_part):
    assert {name.split(',')[0] for name in run_part('losses')[1]} == {
        *('task', 'loss_ib', 'loss_mi')
    }
    assert {name.split(',')[0] for name in run_part('losses', distill=False)[1]} == {'task'}


def test_text_is_encoded_anew_in_every_call(toy_setting):
    bench = Bench(toy_setting('text', num_classes=300))
    bench.clock.repeat(SUBJECTS['text'].make(bench), warmup=0, repeats=3)
    # A cached call takes some microseconds.
    assert min(bench.clock.seconds['embeddings']) > 1e-3


def test_large_vocabularies_get_random_text(run_part, monkeypatch):
    monkeypatch.setattr(subjects, 'ENCODED_NAMES', 5)
    _, seconds = run_part('inference', num_classes=6)
    assert seconds['image'][0] > 0


def test_image_size_is_of_crops_in_training_and_of_the_whole_in_inference(toy_setting):
    bench = Bench(toy_setting('train', image_size=64))
    model = bench.model()
    assert model.input_size == (64, 64)
    crops = bench.crops(model)
    assert crops['inputs'][0].shape == (3, 64, 64)
    assert crops['data_samples'][1].gt_sem_seg.data.shape == (1, 64, 64)
    model = bench.model(working_size=True)
    assert model.input_size == (48, 48) and model.test_cfg['size'] == 64
    assert bench.photos()['inputs'][0].shape == (3, 64, 64)


def test_a_size_of_broken_patches_is_refused_with_the_nearest(run_part):
    with pytest.raises(TimingError, match='nearest image size is 48'):
        run_part('image', image_size=50)


@pytest.mark.parametrize('part', ['train', 'inference', 'image', 'teacher'])
@pytest.mark.parametrize('dtype', ['fp32', 'bf16'])
def test_the_precision_is_that_asked_for(run_part, monkeypatch, part, dtype):
    seen = set()
    encode = CLIPDualEncoder.encode_image

    def watch(self, images):
        features = encode(self, images)
        seen.add(features.dense.dtype)
        return features

    monkeypatch.setattr(CLIPDualEncoder, 'encode_image', watch)
    run_part(part, dtype=dtype)
    assert seen == {torch.bfloat16 if dtype == 'bf16' else torch.float32}


def test_a_missing_or_foreign_config_is_named(run_part, toy_setting):
    with pytest.raises(TimingError, match='no model of type OpenVocabSegmentor'):
        run_part('image', model=dict(type='EncoderDecoder'))
    setting = toy_setting('image', cfg_options={'model.backbone.model_name': 'ViT-X'})
    with pytest.raises(TimingError, match='no model from'):
        SUBJECTS['image'].make(Bench(setting))


def test_profiles_say_where_the_time_goes(run_part):
    bench, _ = run_part('profile_inference')
    groups = bench.info['operators']['groups']
    assert groups['matrix products'] > 0 and groups['convolution'] > 0
    assert groups['attention'] > 0 and groups['softmax and norms'] > 0
    assert 0 < len(bench.info['operators']['operators']) <= 15
    assert bench.info['flops'] > 1e6


def test_groups_of_operators():
    expected = {
        'aten::addmm': 'matrix products',
        'aten::_scaled_dot_product_flash_attention_for_cpu': 'attention',
        'aten::mkldnn_convolution': 'convolution',
        'aten::copy_': 'copies and layout',
        'aten::native_layer_norm': 'softmax and norms',
        'aten::_softmax': 'softmax and norms',
        'aten::upsample_bilinear2d': 'interpolation and pooling',
        'aten::gelu': 'elementwise and sums',
        'aten::le': 'elementwise and sums',
        'cudaLaunchKernel': 'other',
    }
    assert {name: group_of(name) for name in expected} == expected


def test_shares_follow_the_work():
    a, big = torch.randn(400, 400), torch.randn(1 << 20)
    assert _largest(lambda: a @ a @ a) == 'matrix products'
    assert _largest(lambda: [big.clone() for _ in range(5)]) == 'copies and layout'


def _largest(call) -> str:
    groups = profile_operators(call, 'cpu')['groups']
    return max(groups, key=groups.get)
