from pathlib import Path

import pytest
import torch
from mmseg.registry import MODELS
from safetensors.torch import load_file

from infoclip_mmseg.losses import alignment
from infoclip_mmseg.losses.alignment import InfoBottleneckLoss, MITransferLoss
from infoclip_mmseg.losses.entropy import (
    gram_matrix,
    joint_entropy,
    mutual_information,
    renyi_entropy,
)

DATA = Path(__file__).parents[1] / 'data' / 'info_losses.safetensors'
# torch before 2.4 has no float16 autocast on the CPU
HALF = [
    pytest.param(
        torch.float16, marks=pytest.mark.skipif(torch.__version__ < '2.4', reason='old torch')
    ),
    torch.bfloat16,
]


@pytest.fixture(params=['a', 'b'])
def golden(request):
    arrays = load_file(DATA)
    prefix = f'{request.param}.'
    return {key[2:]: value for key, value in arrays.items() if key.startswith(prefix)}


def random_maps(batch=3, positions=5, classes=4, channels=6):
    generator = torch.Generator().manual_seed(0)

    def draw(*shape):
        return torch.randn(*shape, generator=generator).requires_grad_()

    return (
        draw(batch, positions, classes),
        draw(batch, positions, classes),
        draw(batch, positions, channels),
        draw(classes, channels),
    )


def assert_gradient(actual, expected):
    error = (actual - expected).abs().max() / expected.abs().max()
    assert error < 1e-5, error


def test_compression_loss_matches_the_golden_numbers(golden):
    relation = golden['R_teacher'].requires_grad_()
    loss = InfoBottleneckLoss()(relation, golden['V'], golden['L'])
    loss.backward()
    assert loss.item() == pytest.approx(golden['loss_c'].item(), abs=1e-6)
    assert_gradient(relation.grad, golden['grad_c_R_teacher'])


def test_transfer_loss_matches_the_golden_numbers(golden):
    teacher, student = golden['R_teacher'].requires_grad_(), golden['R_student'].requires_grad_()
    loss = MITransferLoss()(teacher, student)
    loss.backward()
    assert loss.item() == pytest.approx(golden['loss_d'].item(), abs=1e-6)
    assert_gradient(teacher.grad, golden['grad_d_R_teacher'])
    assert_gradient(student.grad, golden['grad_d_R_student'])


def test_shared_text_matches_the_golden_number_in_both_forms(golden):
    loss = InfoBottleneckLoss()
    shared = loss(golden['R_teacher'], golden['V'], golden['L'][0])
    expanded = golden['L'][:1].expand_as(golden['L'])
    assert shared.item() == pytest.approx(golden['loss_c_shared_text'].item(), abs=1e-6)
    assert loss(golden['R_teacher'], golden['V'], expanded).item() == shared.item()
    assert shared.item() != loss(golden['R_teacher'], golden['V'], golden['L']).item()


@pytest.mark.parametrize('alpha', [1.0, 2.0])
def test_token_samples_are_the_mean_of_per_image_losses(alpha):
    teacher, student, image, text = random_maps()
    bottleneck = InfoBottleneckLoss(alpha=alpha, samples='token')(teacher, image, text)
    transfer = MITransferLoss(alpha=alpha, samples='token')(teacher, student)
    expected_bottleneck, expected_transfer = [], []
    for relation_t, relation_s, dense in zip(teacher, student, image):
        gram_t, gram_s, gram_v = map(gram_matrix, (relation_t, relation_s, dense))
        expected_bottleneck.append(
            renyi_entropy(gram_t, alpha) - joint_entropy(gram_t, gram_v, alpha=alpha)
        )
        expected_transfer.append(-mutual_information(gram_t, gram_s, alpha))
    torch.testing.assert_close(bottleneck, torch.stack(expected_bottleneck).mean())
    torch.testing.assert_close(transfer, torch.stack(expected_transfer).mean())
    assert bottleneck < 0 and transfer < 0


def test_token_samples_train_on_a_batch_of_one():
    teacher, student, image, text = random_maps(batch=1)
    loss = MITransferLoss(samples='token')(teacher, student)
    (loss + InfoBottleneckLoss(samples='token')(teacher, image, text)).backward()
    assert teacher.grad.abs().max() > 0 and student.grad.abs().max() > 0


@pytest.mark.parametrize('samples', ['batch', 'token'])
def test_descending_the_losses_compresses_and_transfers(samples):
    teacher, student, image, text = random_maps()
    relations = [teacher.detach().requires_grad_(), student.detach().requires_grad_()]
    bottleneck, transfer = InfoBottleneckLoss(samples=samples), MITransferLoss(samples=samples)
    optimizer = torch.optim.SGD(relations, lr=0.5)
    history = []
    for _ in range(20):
        loss = bottleneck(relations[0], image.detach(), text.detach()) + transfer(*relations)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        history.append(loss.item())
    assert history[-1] < history[0] - 0.01


@pytest.mark.parametrize('samples', ['batch', 'token'])
def test_transfer_cannot_tell_classes_that_all_images_exchange(samples):
    """A fact about Eq. 11 that README reports: Gram matrices see inner products only."""
    teacher, student, *_ = random_maps()
    loss = MITransferLoss(samples=samples)
    exchanged = student[:, :, [2, 0, 3, 1]]
    torch.testing.assert_close(loss(teacher, exchanged), loss(teacher, student))
    moved = student[:, [4, 2, 0, 1, 3]]
    same = torch.allclose(loss(teacher, moved), loss(teacher, student))
    assert same is (samples == 'batch')


def test_transfer_prefers_unlike_images_to_the_teacher_itself():
    """Another: a student that equals the teacher is not where the loss is least."""
    teacher = random_maps(batch=4)[0].detach() + 1.0
    unlike = torch.zeros_like(teacher)
    unlike[range(4), range(4), range(4)] = 1.0  # orthogonal, and says nothing of the teacher
    loss = MITransferLoss()
    assert loss(teacher, unlike) < loss(teacher, teacher) - 0.05
    gram = gram_matrix(teacher.flatten(1))
    assert loss(teacher, unlike).item() == pytest.approx(-renyi_entropy(gram, 2.0).item(), abs=1e-5)


def test_nothing_is_detached():
    teacher, student, image, text = random_maps()
    per_image_text = text * torch.tensor([1.0, 2.0, 3.0])[:, None, None] + image.mean()
    loss = InfoBottleneckLoss()(teacher, image, per_image_text) + MITransferLoss()(teacher, student)
    loss.backward()
    assert all(x.grad.abs().max() > 0 for x in (teacher, student, image))


def test_batch_of_one_warns_once_and_gives_exactly_zero(monkeypatch):
    messages = []
    monkeypatch.setattr(alignment, 'print_log', lambda text, **_: messages.append(text))
    alignment._warn_single_sample.cache_clear()
    teacher, student, image, text = random_maps(batch=1)
    for _ in range(2):
        loss = InfoBottleneckLoss()(teacher, image, text) + MITransferLoss()(teacher, student)
    loss.backward()
    alignment._warn_single_sample.cache_clear()
    assert len(messages) == 1
    assert all(fix in messages[0] for fix in ('larger batch', 'more GPUs', "samples='token'"))
    assert loss.item() == 0
    assert torch.count_nonzero(teacher.grad) == 0 and torch.count_nonzero(student.grad) == 0


def test_larger_batches_do_not_warn(monkeypatch):
    messages = []
    monkeypatch.setattr(alignment, 'print_log', lambda text, **_: messages.append(text))
    alignment._warn_single_sample.cache_clear()
    teacher, student, image, text = random_maps(batch=2)
    InfoBottleneckLoss()(teacher, image, text)
    MITransferLoss()(teacher, student)
    MITransferLoss(samples='token')(teacher[:1], student[:1])
    assert not messages


@pytest.mark.parametrize('dtype', HALF)
def test_float32_under_autocast(dtype):
    teacher, student, image, text = random_maps()
    losses = InfoBottleneckLoss(), MITransferLoss()
    outside = losses[0](teacher, image, text), losses[1](teacher, student)
    with torch.autocast('cpu', dtype=dtype):
        inside = losses[0](teacher, image, text), losses[1](teacher, student)
    assert inside[0].dtype == inside[1].dtype == torch.float32
    assert inside[0].equal(outside[0]) and inside[1].equal(outside[1])
    half = losses[0](teacher.to(dtype), image.to(dtype), text.to(dtype))
    assert half.dtype == torch.float32
    torch.testing.assert_close(half, outside[0], atol=0.01, rtol=0)


def test_built_from_the_registry_with_weight_and_name():
    teacher, student, image, text = random_maps()
    bottleneck = MODELS.build(dict(type='InfoBottleneckLoss', loss_weight=0.5))
    transfer = MODELS.build(dict(type='MITransferLoss', loss_weight=2.0, loss_name='loss_info'))
    assert (bottleneck.loss_name, transfer.loss_name) == ('loss_ib', 'loss_info')
    torch.testing.assert_close(
        bottleneck(teacher, image, text), 0.5 * InfoBottleneckLoss()(teacher, image, text)
    )
    torch.testing.assert_close(transfer(teacher, student), 2 * MITransferLoss()(teacher, student))


@pytest.mark.parametrize(
    'options, message',
    [(dict(alpha=0), 'alpha is 0'), (dict(samples='pixel'), "'batch' or 'token'")],
)
@pytest.mark.parametrize('loss', [InfoBottleneckLoss, MITransferLoss])
def test_bad_options_are_refused_when_built(loss, options, message):
    with pytest.raises(ValueError, match=message):
        loss(**options)


@pytest.mark.parametrize(
    'relation, image, text',
    [
        ((2, 5, 4), (3, 5, 6), (4, 6)),
        ((2, 5, 4), (2, 9, 6), (4, 6)),
        ((2, 5, 4), (2, 5, 6), (3, 6)),
        ((2, 5, 4), (2, 5, 6), (4, 7)),
        ((2, 5, 4), (2, 5, 6), (1, 4, 6)),
        ((2, 5, 4), (2, 6, 5, 5), (4, 6)),
        ((5, 4), (5, 6), (4, 6)),
    ],
)
@pytest.mark.parametrize('samples', ['batch', 'token'])
def test_bottleneck_refuses_shapes_that_do_not_fit(relation, image, text, samples):
    with pytest.raises(ValueError, match='relation must be'):
        InfoBottleneckLoss(samples=samples)(
            torch.randn(relation), torch.randn(image), torch.randn(text)
        )


@pytest.mark.parametrize('student', [(3, 5, 4), (2, 6, 4), (2, 5, 3), (5, 4)])
def test_transfer_refuses_shapes_that_do_not_fit(student):
    with pytest.raises(ValueError, match='relation maps of teacher and student'):
        MITransferLoss()(torch.randn(2, 5, 4), torch.randn(student))
