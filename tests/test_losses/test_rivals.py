from pathlib import Path

import numpy as np
import pytest
import torch
from mmseg.registry import MODELS
from safetensors.torch import load_file

from infoclip_mmseg.losses import (
    KLDistillationLoss,
    RepresentationCompensationLoss,
    SelfDistillationLoss,
    class_kl,
    embedding_smooth_l1,
    representation_compensation,
)
from infoclip_mmseg.losses.rivals import strip_pooling

DATA = Path(__file__).parents[1] / 'data' / 'representation_compensation.safetensors'
LOSSES = dict(
    kl=(KLDistillationLoss(temperature=0.5), (2, 6, 5)),
    kl_one_class=(KLDistillationLoss(), (2, 6, 1)),
    kl_one_image=(KLDistillationLoss(), (1, 6, 5)),
    maft=(SelfDistillationLoss(), (2, 7, 5, 4)),
    maft_one_image=(SelfDistillationLoss(), (1, 7, 4, 5)),
    maft_plus=(RepresentationCompensationLoss(), (2, 7, 5, 8)),
    maft_plus_one_image=(RepresentationCompensationLoss(), (1, 7, 8, 5)),
)


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def smooth_l1(difference):
    size = np.abs(difference)
    return np.where(size < 1, size**2 / 2, size - 0.5)


def kl_by_hand(teacher, student, temperature):
    """Sum of p log(p / q) at each position, one position after the other."""
    values = []
    for row_t, row_s in zip(teacher.reshape(-1, teacher.shape[-1]), student.reshape(-1, 5)):
        p, q = np.exp(row_t / temperature), np.exp(row_s / temperature)
        p, q = p / p.sum(), q / q.sum()
        values.append((p * np.log(p / q)).sum())
    return np.mean(values)


def strips_by_hand(dense, scales):
    """Row and column sums of cell means of square maps (B, C, S, S), cell by cell."""
    batch, channels, side, _ = dense.shape
    strips = []
    for scale in scales:
        step = side // scale
        count = side // step
        cells = np.zeros((batch, channels, count, count))
        for i in range(count):
            for j in range(count):
                window = dense[:, :, i * step : (i + 1) * step, j * step : (j + 1) * step]
                cells[:, :, i, j] = window.mean(axis=(2, 3))
        strips += [cells.sum(axis=2).reshape(batch, -1), cells.sum(axis=3).reshape(batch, -1)]
    return np.concatenate(strips, axis=1)


@pytest.mark.parametrize('temperature', [0.3, 1.0, 4.0])
def test_kl_is_that_of_the_definition(temperature):
    teacher, student = draw(2, 6, 5).double(), draw(2, 6, 5, seed=1).double()
    expected = kl_by_hand(teacher.numpy(), student.numpy(), temperature)
    assert class_kl(teacher, student, temperature).item() == pytest.approx(expected, rel=1e-10)


def test_kl_of_a_hand_made_case():
    """Teacher (3/4, 1/4), student (1/2, 1/2): 3/4 ln 3/2 + 1/4 ln 1/2."""
    teacher = torch.tensor([[[3.0, 1.0]]]).log()
    expected = 0.75 * np.log(1.5) + 0.25 * np.log(0.5)
    assert class_kl(teacher, torch.zeros(1, 1, 2)).item() == pytest.approx(expected, abs=1e-6)


def test_kl_gradient_is_the_difference_of_the_distributions():
    teacher, student = draw(2, 3, 4), draw(2, 3, 4, seed=1).requires_grad_()
    class_kl(teacher, student, temperature=0.5).backward()
    difference = (student / 0.5).softmax(-1) - (teacher / 0.5).softmax(-1)
    torch.testing.assert_close(student.grad, difference.detach() / 0.5 / 6)


def test_kl_of_sharp_distributions_is_finite():
    teacher, student = draw(2, 3, 4), draw(2, 3, 4, seed=1).requires_grad_()
    loss = class_kl(teacher, student, temperature=1e-4)
    loss.backward()
    assert loss.isfinite() and student.grad.isfinite().all()


def test_self_distillation_is_that_of_the_definition():
    teacher, student = draw(2, 3, 4, 5).double(), 2 * draw(2, 3, 4, 5, seed=1).double()
    difference = teacher.numpy() - student.numpy()
    assert (np.abs(difference) > 1).any() and (np.abs(difference) < 1).any()
    expected = smooth_l1(difference).mean()
    assert embedding_smooth_l1(teacher, student).item() == pytest.approx(expected, rel=1e-10)


def test_self_distillation_of_a_hand_made_case():
    """Differences 0.5 and 3: (0.125 + 2.5) / 2."""
    teacher = torch.tensor([1.0, 1.0]).view(1, 1, 1, 2)
    student = torch.tensor([1.5, -2.0]).view(1, 1, 1, 2)
    assert embedding_smooth_l1(teacher, student).item() == pytest.approx(1.3125)


@pytest.mark.parametrize('case', ['sq', 'wide'])
def test_representation_compensation_matches_the_golden_numbers(case):
    arrays = load_file(DATA)
    teacher = arrays[f'rc_{case}_teacher'].requires_grad_()
    student = arrays[f'rc_{case}_student'].requires_grad_()
    loss = representation_compensation(teacher, student)
    loss.backward()
    assert loss.item() == pytest.approx(arrays[f'rc_{case}_loss'].item(), rel=1e-5)
    expected = arrays[f'rc_{case}_grad']
    assert (student.grad - expected).abs().max() / expected.abs().max() < 1e-5
    assert teacher.grad is None
    weighted = RepresentationCompensationLoss()(teacher, student)
    assert weighted.item() == pytest.approx(0.1 * loss.item())


@pytest.mark.parametrize('side, scales', [(8, (1, 2, 4)), (7, (1, 2, 4)), (6, (3,))])
def test_representation_compensation_is_that_of_the_definition(side, scales):
    teacher, student = draw(2, 3, side, side).double(), draw(2, 3, side, side, seed=1).double()
    strips = [strips_by_hand(np.maximum(x.numpy(), 0), scales) for x in (teacher, student)]
    expected = smooth_l1(strips[0] - strips[1]).mean()
    loss = representation_compensation(teacher, student, scales)
    assert loss.item() == pytest.approx(expected, rel=1e-10)


def test_a_map_and_its_transpose_cost_the_same():
    teacher, student = draw(2, 3, 6, 9), draw(2, 3, 6, 9, seed=1)
    tall = representation_compensation(teacher.transpose(2, 3), student.transpose(2, 3))
    torch.testing.assert_close(tall, representation_compensation(teacher, student))


def test_strips_of_a_hand_made_map():
    dense = torch.tensor([[[[1.0, 2.0], [3.0, 5.0]]]])
    assert strip_pooling(dense, scales=(1, 2)).tolist() == [[2.75, 2.75, 4, 7, 3, 8]]


@pytest.mark.parametrize('name', LOSSES)
def test_a_student_that_equals_the_teacher_costs_nothing(name):
    loss, shape = LOSSES[name]
    student = draw(*shape).requires_grad_()
    value = loss(draw(*shape), student)
    value.backward()
    assert value.item() == 0
    torch.testing.assert_close(student.grad, torch.zeros(shape), atol=1e-7, rtol=0)


@pytest.mark.parametrize('name', LOSSES)
def test_the_gradient_reaches_the_student_only(name):
    loss, shape = LOSSES[name]
    teacher = draw(*shape).requires_grad_()
    student = draw(*shape, seed=1).requires_grad_()
    loss(teacher, student).backward()
    assert teacher.grad is None
    if name != 'kl_one_class':  # one class has probability 1, whatever its similarity
        assert all(image.abs().max() > 0 for image in student.grad)


@pytest.mark.parametrize('name', ['kl', 'maft', 'maft_plus'])
def test_a_batch_is_the_mean_over_its_images(name):
    loss, shape = LOSSES[name]
    teacher, student = draw(*shape), draw(*shape, seed=1)
    alone = [loss(t[None], s[None]) for t, s in zip(teacher, student)]
    assert abs(alone[0] - alone[1]) > 1e-4 * alone[0]
    torch.testing.assert_close(loss(teacher, student), torch.stack(alone).mean())


@pytest.mark.parametrize('name', ['kl', 'maft', 'maft_plus'])
def test_descending_a_loss_brings_the_student_to_the_teacher(name):
    loss, shape = LOSSES[name]
    teacher, student = draw(*shape), draw(*shape, seed=1).requires_grad_()
    optimizer = torch.optim.Adam([student], lr=0.05)
    first = loss(teacher, student).item()
    for _ in range(100):
        optimizer.zero_grad()
        loss(teacher, student).backward()
        optimizer.step()
    assert loss(teacher, student).item() < 0.05 * first


@pytest.mark.parametrize('name', ['kl', 'maft', 'maft_plus'])
def test_float32_under_autocast(name):
    loss, shape = LOSSES[name]
    teacher, student = draw(*shape), draw(*shape, seed=1)
    outside = loss(teacher, student)
    with torch.autocast('cpu', dtype=torch.bfloat16):
        inside = loss(teacher, student)
        half = loss(teacher.bfloat16(), student.bfloat16())
    assert inside.dtype == half.dtype == torch.float32
    assert inside.equal(outside)
    torch.testing.assert_close(half, outside, rtol=0.05, atol=0)


def test_built_from_the_registry_with_weight_and_name():
    relation, other = draw(2, 6, 5), draw(2, 6, 5, seed=1)
    kl = MODELS.build(dict(type='KLDistillationLoss', loss_weight=3.0, temperature=2.0))
    torch.testing.assert_close(kl(relation, other), 3 * class_kl(relation, other, 2.0))
    maft = MODELS.build(dict(type='SelfDistillationLoss', loss_weight=2.0))
    dense, tuned = draw(2, 3, 4, 4), draw(2, 3, 4, 4, seed=1)
    torch.testing.assert_close(maft(dense, tuned), 2 * embedding_smooth_l1(dense, tuned))
    plus = MODELS.build(
        dict(type='RepresentationCompensationLoss', loss_name='loss_x', scales=[1, 2])
    )
    expected = 0.1 * representation_compensation(dense, tuned, (1, 2))
    torch.testing.assert_close(plus(dense, tuned), expected)
    assert [x.loss_name for x in (kl, maft, plus)] == ['loss_kl', 'loss_sd', 'loss_x']


@pytest.mark.parametrize('temperature', [0.0, -1.0, float('inf'), float('nan')])
def test_bad_temperatures_are_refused_when_built(temperature):
    with pytest.raises(ValueError, match='must be positive and finite'):
        KLDistillationLoss(temperature=temperature)


@pytest.mark.parametrize('scales', [(), (0, 1), (1, 9)])
def test_scales_that_do_not_fit_the_grid_are_refused(scales):
    with pytest.raises(ValueError, match=r'from 1 to 8, .* 5 x 8 grid'):
        representation_compensation(draw(1, 2, 5, 8), draw(1, 2, 5, 8), scales)


@pytest.mark.parametrize('name', ['kl', 'maft', 'maft_plus'])
def test_shapes_that_differ_are_refused(name):
    loss, shape = LOSSES[name]
    for axis in range(len(shape)):
        other = [size + (i == axis) for i, size in enumerate(shape)]
        with pytest.raises(ValueError, match='resize or project the student'):
            loss(draw(*shape), draw(*other))
    with pytest.raises(ValueError, match='must both be'):
        loss(draw(*shape)[0], draw(*shape)[0])
