"""The Cauchy-Schwarz divergence: known answers, invariances, and what a neck can do to it."""

from __future__ import annotations

import math

import pytest
import torch
from mmseg.registry import MODELS
from torch import nn

from infoclip_mmseg.losses import (
    Branch,
    cauchy_schwarz_divergence,
    cosine_relation,
    gram_matrix,
    mutual_information_transfer,
)
from infoclip_mmseg.losses import cauchy_schwarz as module
from infoclip_mmseg.models import LPAM

SAMPLES = ('token', 'batch', 'map')
SHAPES = [(2, 24, 5), (2, 6, 20), (3, 24, 24)]  # more positions than classes, fewer, as many


def maps(shape: tuple[int, ...], seed: int = 0, dtype=torch.float64) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)


def rotation(size: int) -> torch.Tensor:
    return torch.linalg.qr(maps((size, size), 9)).Q


def by_definition(teacher: torch.Tensor, student: torch.Tensor) -> torch.Tensor:
    """log2 |G_T|^2 + log2 |G_S|^2 - 2 log2 <G_T, G_S> of Gram matrices."""
    x, y = gram_matrix(teacher), gram_matrix(student)
    inner, *squares = ((a * b).sum((-2, -1)).log2() for a, b in ((x, y), (x, x), (y, y)))
    return (sum(squares) - 2 * inner).mean()


@pytest.mark.parametrize('shape', SHAPES)
def test_is_the_definition(shape):
    teacher, student = maps(shape), maps(shape, 1)
    value = cauchy_schwarz_divergence(teacher, student)
    torch.testing.assert_close(value, by_definition(teacher, student))
    value = cauchy_schwarz_divergence(teacher, student, 'batch')
    torch.testing.assert_close(value, by_definition(teacher.flatten(1), student.flatten(1)))


def test_map_is_two_log2_of_the_cosine_of_centred_maps():
    teacher, student = maps((2, 6, 5)), maps((2, 6, 5), 1) + 2 * maps((2, 6, 5))
    value = cauchy_schwarz_divergence(teacher, student, 'map')
    x, y = ((z - z.mean(-1, keepdim=True)).flatten(1) for z in (teacher, student))
    expected = -2 * torch.cosine_similarity(x, y).log2().mean()
    torch.testing.assert_close(value, expected)


@pytest.mark.parametrize('n', [2, 8, 64])
def test_identical_beside_orthogonal_rows_are_log2_n_bits_apart(n):
    identical, orthogonal = torch.ones(1, n, n), torch.eye(n)[None]
    for pair in ((identical, orthogonal), (orthogonal, identical)):
        value = cauchy_schwarz_divergence(*pair)
        assert value.item() == pytest.approx(math.log2(n), abs=1e-5)


@pytest.mark.parametrize('shape', SHAPES)
@pytest.mark.parametrize('samples', SAMPLES)
def test_zero_where_equal_and_positive_elsewhere(shape, samples):
    teacher = maps(shape)
    assert cauchy_schwarz_divergence(teacher, teacher, samples).abs() < 1e-12
    for seed in (1, 2, 3):
        near = teacher + 0.3 * maps(shape, seed)
        far = teacher + 3 * maps(shape, seed)
        values = [cauchy_schwarz_divergence(teacher, x, samples) for x in (near, far)]
        assert 0 < values[0] < values[1]


def test_what_changes_nothing():
    teacher = maps((2, 24, 5))
    scaled = teacher * maps((2, 24, 1), 1).abs()
    same = {
        'token': (scaled, teacher @ rotation(5), teacher.flip(-1)),
        'batch': (teacher * maps((2, 1, 1), 1).abs(), teacher.flip(-1), teacher.flip(1)),
        'map': (teacher * maps((2, 1, 1), 1).abs(), teacher + maps((2, 24, 1), 1)),
    }
    for samples, students in same.items():
        for student in students:
            value = cauchy_schwarz_divergence(teacher, student, samples)
            assert value.abs() < 1e-12, samples


def test_what_is_told_apart():
    teacher = maps((3, 24, 5))
    told = {
        'token': (teacher.flip(1), teacher.roll(1, 0)),  # positions, images
        'batch': (teacher.roll(1, 0) @ rotation(5),),  # images
        'map': (teacher.flip(1), teacher.flip(2), teacher.roll(1, 0), scaled_rows(teacher)),
    }
    for samples, students in told.items():
        for student in students:
            assert cauchy_schwarz_divergence(teacher, student, samples) > 0.05, samples


def scaled_rows(x: torch.Tensor) -> torch.Tensor:
    return x * torch.linspace(0.1, 4, x.shape[1], dtype=x.dtype)[:, None]


def test_number_of_classes_may_differ_over_positions_only():
    value = cauchy_schwarz_divergence(maps((2, 24, 5)), maps((2, 24, 7), 1))
    assert value.isfinite() and value > 0
    for samples in ('batch', 'map'):
        with pytest.raises(ValueError, match=r'\(2, 24, 5\) and \(2, 24, 7\)'):
            cauchy_schwarz_divergence(maps((2, 24, 5)), maps((2, 24, 7)), samples)


@pytest.mark.parametrize('shape', SHAPES)
@pytest.mark.parametrize('samples', SAMPLES)
def test_gradient(shape, samples):
    pair = [x.requires_grad_() for x in (maps(shape), maps(shape) + maps(shape, 1))]
    assert torch.autograd.gradcheck(
        lambda x, y: cauchy_schwarz_divergence(x, y, samples), pair, atol=1e-7
    )


def test_opposite_maps_are_finite_and_pull_back():
    teacher = maps((2, 6, 5))
    student = (-teacher).requires_grad_()
    value = cauchy_schwarz_divergence(teacher, student, 'map')
    least = -2 * math.log2(module.LEAST_COSINE)
    assert value.isfinite() and value > least
    # Smooth where the tangent begins.
    cosine = torch.tensor([module.LEAST_COSINE], dtype=torch.float64, requires_grad=True)
    sides = [module.cosine_bits(cosine + step) for step in (-1e-9, 1e-9)]
    slopes = [torch.autograd.grad(side, cosine)[0].item() for side in sides]
    assert sides[0].item() == pytest.approx(sides[1].item(), abs=1e-6)
    assert slopes[0] == pytest.approx(slopes[1], rel=1e-6)
    assert slopes[0] == pytest.approx(-2 / (module.LEAST_COSINE * math.log(2)), rel=1e-6)


@pytest.mark.parametrize('samples', SAMPLES)
def test_maps_without_a_direction_count_as_zero(samples):
    """Zero rows and constant maps: no logarithm of 0, no NaN in the gradient."""
    teacher = maps((2, 24, 5), dtype=torch.float32)
    said = cauchy_schwarz_divergence(teacher[:1], teacher[:1] + maps((1, 24, 5), 1).float(), 'map')
    nothing = torch.zeros(2, 24, 5)
    for side in (0, 1):
        pair = [teacher.clone(), nothing.clone()]
        student = pair[side].requires_grad_()
        value = cauchy_schwarz_divergence(pair[1 - side], student, samples)
        value.backward()
        assert value == 0 and student.grad.eq(0).all()
    if samples == 'map':  # the same for all classes, but not after rounding
        constant = torch.rand(2, 24, 1).expand(2, 24, 5).clone()
        assert constant.mean(-1, keepdim=True).ne(constant).any(), 'nothing is rounded'
        constant.requires_grad_()
        value = cauchy_schwarz_divergence(teacher, constant, samples)
        value.backward()
        assert value == 0 and constant.grad.eq(0).all()
        mixed = torch.stack([teacher[0] + maps((24, 5), 1).float(), constant[1].detach()])
        value = cauchy_schwarz_divergence(teacher, mixed, samples)
        torch.testing.assert_close(value, said / 2)


def test_zero_rows_among_others_are_left_out():
    teacher, student = maps((2, 24, 5)), maps((2, 24, 5), 1)
    kept = cauchy_schwarz_divergence(teacher[:, :20], student[:, :20])
    student = student.clone()
    teacher[:, 20:], student[:, 20:] = 0, 0
    student.requires_grad_()
    value = cauchy_schwarz_divergence(teacher, student)
    value.backward()
    torch.testing.assert_close(value.detach(), kept)
    assert student.grad.isfinite().all()


@pytest.mark.parametrize(
    ('samples', 'shape', 'what'),
    [
        ('token', (2, 1, 5), 'one position in each image'),
        ('batch', (1, 24, 5), 'one image in total'),
        ('map', (2, 24, 1), 'one class'),
    ],
)
def test_nothing_to_compare_with_is_said_once(samples, shape, what, monkeypatch):
    said = []
    monkeypatch.setattr(module, 'print_log', lambda text, **_: said.append(text))
    module._warn_single.cache_clear()
    for _ in range(2):
        value = cauchy_schwarz_divergence(maps(shape), maps(shape, 1).abs(), samples)
        assert value.abs() < 1e-12
    assert len(said) == 1 and what in said[0] and 'Set samples to' in said[0]
    module._warn_single.cache_clear()


def test_unlike_eq_11_it_is_least_at_the_teacher():
    """Eq. 11 is lower for maps that are orthogonal between images, whatever they say."""
    teacher = 1 + 0.1 * maps((4, 6, 5))
    spread = torch.eye(4, dtype=torch.float64).repeat_interleave(8, 1)[:, :30].reshape(4, 6, 5)
    rewarded = [mutual_information_transfer(teacher, x) for x in (spread, teacher)]
    compared = [cauchy_schwarz_divergence(teacher, x, 'batch') for x in (spread, teacher)]
    assert rewarded[0] <= rewarded[1] + 1e-9
    assert compared[0] > 1 and compared[1].abs() < 1e-12


class TestNeck:
    """A learnable neck inside the transfer satisfies the loss in the student's place."""

    def branches(self, neck: nn.Module) -> tuple[Branch, Branch]:
        text = maps((5, 8), 3, torch.float32)
        dense = [maps((2, 8, 4, 6), seed, torch.float32) for seed in (0, 1)]
        return Branch(dense[0], text, neck), Branch(dense[1], text, neck)

    def trained(self, steps: int = 300, **options) -> tuple[float, float]:
        """The loss before and after training the neck alone; both students stay as they are."""
        torch.manual_seed(0)
        neck, loss = LPAM(8), MODELS.build(dict(type='CauchySchwarzLoss', **options))
        optimizer = torch.optim.Adam(neck.parameters(), lr=0.05)
        values = []
        for _ in range(steps):
            value = loss.distill(*self.branches(neck))
            values.append(value.item())
            optimizer.zero_grad()
            value.backward()
            optimizer.step()
        return values[0], values[-1]

    def test_shared_neck_cheats(self):
        before, after = self.trained(maps='shared', detach_teacher=False)
        assert after < 0.05 * before

    @pytest.mark.parametrize('kind', ['detached', 'cosine'])
    def test_others_cannot(self, kind):
        torch.manual_seed(0)
        neck, loss = LPAM(8), MODELS.build(dict(type='CauchySchwarzLoss', maps=kind))
        teacher, student = self.branches(neck)
        student.dense.requires_grad_()
        loss.distill(teacher, student).backward()
        assert all(parameter.grad is None for parameter in neck.parameters())
        assert student.dense.grad.abs().max() > 0

    def test_maps_by_kind(self):
        torch.manual_seed(0)
        neck = LPAM(8)
        branch, _ = self.branches(neck)
        plain = cosine_relation(branch.positions, branch.text)
        torch.testing.assert_close(branch.cosines, plain)
        torch.testing.assert_close(branch.fixed_relation, branch.relation)
        assert not branch.relation.allclose(plain)
        alone = Branch(branch.dense, branch.text)
        assert alone.cosines is alone.relation and alone.fixed_relation is alone.relation


def test_wrong_options_are_named():
    with pytest.raises(ValueError, match="'positions'.*token.*batch.*map"):
        MODELS.build(dict(type='CauchySchwarzLoss', samples='positions'))
    with pytest.raises(ValueError, match="'lpam'.*cosine.*detached.*shared"):
        MODELS.build(dict(type='CauchySchwarzLoss', maps='lpam'))
