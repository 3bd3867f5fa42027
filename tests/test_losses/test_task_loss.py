import math
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from mmseg.models.losses import CrossEntropyLoss
from mmseg.registry import MODELS
from safetensors.torch import load_file

from infoclip_mmseg.losses import task
from infoclip_mmseg.losses.task import CATSegBCELoss, catseg_bce

DATA = Path(__file__).parents[1] / 'data' / 'catseg_tiny.safetensors'
CLASSES = 4
# torch before 2.4 has no float16 autocast on the CPU
HALF = [
    pytest.param(
        torch.float16, marks=pytest.mark.skipif(torch.__version__ < '2.4', reason='old torch')
    ),
    torch.bfloat16,
]


@pytest.fixture
def batch():
    generator = torch.Generator().manual_seed(0)
    logits = 5 * torch.randn(2, CLASSES, 6, 7, generator=generator)
    labels = torch.randint(0, CLASSES, (2, 6, 7), generator=generator)
    labels[torch.rand(2, 6, 7, generator=generator) < 0.3] = 255
    return logits, labels


def one_hot_bce(logits, labels):
    targets = torch.stack([labels == index for index in range(logits.shape[1])], dim=1).float()
    return F.binary_cross_entropy_with_logits(logits, targets)


@pytest.fixture
def mmseg_loss():
    return CrossEntropyLoss(use_sigmoid=True, avg_non_ignore=True)


def test_golden_loss():
    arrays = load_file(DATA)
    logits = F.interpolate(
        arrays['logits_5'], arrays['target'].shape[-2:], mode='bilinear', align_corners=False
    )
    loss = catseg_bce(logits, arrays['target'])
    assert loss.item() == pytest.approx(arrays['loss_bce'].item(), abs=1e-6)
    assert CATSegBCELoss()(logits, arrays['target']).item() == loss.item()


@pytest.mark.parametrize('ignored', ['negative', 'exclude'])
@pytest.mark.parametrize('chunk', [1, 2 * 12 * 9 * 3, 2**20])  # one, three and all classes
def test_resizing_a_few_classes_at_a_time_changes_nothing(monkeypatch, ignored, chunk):
    monkeypatch.setattr(task, '_CPU_CHUNK', chunk)
    logits = 5 * torch.randn(2, CLASSES, 4, 3)
    labels = torch.randint(0, CLASSES, (2, 12, 9))
    labels[torch.rand(2, 12, 9) < 0.3] = 255
    ours, reference = logits.clone().requires_grad_(), logits.clone().requires_grad_()
    large = F.interpolate(reference, (12, 9), mode='bilinear', align_corners=False)
    loss, weight = CATSegBCELoss(ignored), torch.rand(2, 12, 9)
    small = loss(ours, labels, weight, resize=True)
    expected = loss(large, labels, weight)
    torch.testing.assert_close(small, expected)
    torch.testing.assert_close(loss(logits, labels, weight, resize=True), expected)
    small.backward()
    expected.backward()
    torch.testing.assert_close(ours.grad, reference.grad)


def test_negative_equals_one_hot_bce_in_value_and_gradient(batch):
    logits, labels = batch
    ours, reference = logits.clone().requires_grad_(), logits.clone().requires_grad_()
    loss, expected = catseg_bce(ours, labels), one_hot_bce(reference, labels)
    loss.backward()
    expected.backward()
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(ours.grad, reference.grad)


def test_exclude_equals_mmseg_in_value_and_gradient(batch, mmseg_loss):
    logits, labels = batch
    ours, reference = logits.clone().requires_grad_(), logits.clone().requires_grad_()
    loss = catseg_bce(ours, labels, ignored='exclude')
    expected = mmseg_loss(reference, labels, ignore_index=255)
    loss.backward()
    expected.backward()
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(ours.grad, reference.grad)
    assert abs(loss.item() - catseg_bce(logits, labels).item()) > 1e-3


@pytest.mark.parametrize('options', [{}, {'avg_factor': 17.0}, {'reduction_override': 'sum'}])
@pytest.mark.parametrize('weighted', [False, True])
def test_exclude_reduces_as_mmseg(batch, mmseg_loss, options, weighted):
    logits, labels = batch
    weight = torch.linspace(0, 2, labels.numel()).view(labels.shape) if weighted else None
    ours = CATSegBCELoss(ignored='exclude')(logits, labels, weight=weight, **options)
    expected = mmseg_loss(logits, labels, weight=weight, ignore_index=255, **options)
    torch.testing.assert_close(ours, expected)


def test_no_reduction_keeps_pixels(batch):
    logits, labels = batch
    loss = CATSegBCELoss()
    pixels = loss(logits, labels, reduction_override='none')
    assert pixels.shape == labels.shape
    torch.testing.assert_close(pixels.mean(), loss(logits, labels))


@pytest.mark.parametrize('ignored', ['negative', 'exclude'])
def test_all_pixels_ignored(ignored):
    logits = torch.randn(1, CLASSES, 3, 3, requires_grad=True)
    labels = torch.full((1, 3, 3), 255)
    loss = catseg_bce(logits, labels, ignored=ignored)
    loss.backward()
    if ignored == 'negative':
        torch.testing.assert_close(loss, one_hot_bce(logits, labels))
    else:
        assert loss.item() == 0 and torch.count_nonzero(logits.grad) == 0


def test_undecoded_classes_at_minus_100_are_exact():
    logits = torch.full((1, 3, 2, 2), -100.0, requires_grad=True)
    labels = torch.tensor([[[0, 1], [2, 255]]])
    loss = catseg_bce(logits, labels)
    loss.backward()
    assert loss.item() == 100 * 3 / 12
    expected = torch.zeros(1, 3, 2, 2)
    expected[0, 0, 0, 0] = expected[0, 1, 0, 1] = expected[0, 2, 1, 0] = -1 / 12
    torch.testing.assert_close(logits.grad, expected, atol=1e-30, rtol=0)


def test_small_losses_keep_their_digits():
    logits = torch.full((1, 100, 64, 64), -12.0)
    labels = torch.randint(0, 100, (1, 64, 64), generator=torch.Generator().manual_seed(0))
    logits.scatter_(1, labels[:, None], 12.0)
    expected = math.log1p(math.exp(-12))
    assert catseg_bce(logits, labels).item() == pytest.approx(expected, rel=1e-2)
    assert catseg_bce(logits.double(), labels).item() == pytest.approx(expected, rel=1e-9)


def test_one_class():
    logits, labels = torch.randn(2, 1, 3, 3), torch.zeros(2, 3, 3, dtype=torch.long)
    torch.testing.assert_close(catseg_bce(logits, labels), one_hot_bce(logits, labels))


def test_another_ignore_index_and_byte_labels(batch):
    logits, labels = batch
    expected = catseg_bce(logits, labels)
    torch.testing.assert_close(catseg_bce(logits, labels.to(torch.uint8)), expected)
    moved = labels.where(labels != 255, torch.tensor(-1))
    torch.testing.assert_close(catseg_bce(logits, moved, ignore_index=-1), expected)
    loss = CATSegBCELoss()(logits, moved, ignore_index=-1)
    torch.testing.assert_close(loss, expected)


@pytest.mark.parametrize('dtype', HALF)
@pytest.mark.parametrize('autocast', [False, True])
def test_half_precision_logits_are_summed_in_float32(dtype, autocast):
    logits = torch.randn(1, 150, 100, 100, generator=torch.Generator().manual_seed(0)).to(dtype)
    labels = torch.zeros(1, 100, 100, dtype=torch.long)
    with torch.autocast('cpu', dtype=dtype, enabled=autocast):
        loss = catseg_bce(logits, labels)
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(one_hot_bce(logits.double(), labels).item(), rel=1e-6)


@pytest.mark.parametrize('bad', [CLASSES, 200, -1])
def test_labels_out_of_range_are_refused(batch, bad):
    logits, labels = batch
    labels[0, 0, 0] = bad
    with pytest.raises(ValueError, match=rf'\[{bad}\].*4 classes.*0\.\.3'):
        catseg_bce(logits, labels)


@pytest.mark.parametrize('shape', [(2, 12, 14), (1, 6, 7), (2, 1, 6, 7)])
def test_labels_of_another_size_are_refused(batch, shape):
    with pytest.raises(ValueError, match='of the same size'):
        catseg_bce(batch[0], torch.zeros(shape, dtype=torch.long))


def test_bad_options_are_refused(batch):
    with pytest.raises(ValueError, match="'negative' or 'exclude'"):
        CATSegBCELoss(ignored='skip')
    with pytest.raises(ValueError, match="'negative' or 'exclude'"):
        catseg_bce(*batch, ignored='skip')
    with pytest.raises(ValueError, match='reduction is'):
        CATSegBCELoss()(*batch, reduction_override='median')
    with pytest.raises(ValueError, match='reduction is'):
        CATSegBCELoss()(*batch, reduction_override='sum', avg_factor=3)
    with pytest.raises(ValueError, match='class indices'):
        catseg_bce(batch[0], batch[1].float())


def test_built_from_the_registry_with_weight_and_name(batch):
    loss = MODELS.build(dict(type='CATSegBCELoss', ignored='exclude', loss_weight=0.5))
    assert loss.loss_name == 'loss_seg'
    torch.testing.assert_close(loss(*batch), 0.5 * catseg_bce(*batch, ignored='exclude'))


@pytest.mark.parametrize('ignored', ['negative', 'exclude'])
def test_class_weights_are_those_of_torch(batch, ignored):
    logits, labels = batch
    weights = [0.0, 0.5, 1.0, 3.0]
    targets = torch.stack([labels == index for index in range(CLASSES)], dim=1).double()
    positive = torch.tensor(weights, dtype=torch.float64)[:, None, None]
    bce = F.binary_cross_entropy_with_logits
    values = []
    for compute in (
        lambda x: bce(x, targets, pos_weight=positive, reduction='none').mean(dim=1),
        lambda x: CATSegBCELoss('negative', class_weight=weights)(
            x, labels, reduction_override='none'
        ),
        lambda x: CATSegBCELoss('negative', class_weight=weights)(
            x, labels, reduction_override='none', resize=True
        ),
    ):
        leaf = logits.double().requires_grad_()
        loss = compute(leaf)
        counted = torch.ones_like(loss) if ignored == 'negative' else (labels != 255).double()
        total = (loss * counted).sum()
        values.append((loss.detach(), *torch.autograd.grad(total, leaf)))
    for own in values[1:]:
        torch.testing.assert_close(own, values[0])
    excluding = CATSegBCELoss('exclude', class_weight=weights)(logits, labels)
    mean = (values[0][0] * (labels != 255)).sum() / (labels != 255).sum()
    torch.testing.assert_close(excluding.double(), mean)


@pytest.mark.parametrize('chunk', [1, 2**20])
def test_class_weights_of_resized_logits(monkeypatch, chunk):
    monkeypatch.setattr(task, '_CPU_CHUNK', chunk)
    logits = 5 * torch.randn(2, CLASSES, 4, 3, dtype=torch.float64)
    labels = torch.randint(0, CLASSES, (2, 12, 9))
    labels[0, :3] = 255
    loss = CATSegBCELoss(class_weight=[2, 1, 0.3, 5])
    one, two = logits.clone().requires_grad_(), logits.clone().requires_grad_()
    larger = F.interpolate(one, (12, 9), mode='bilinear', align_corners=False)
    expected, got = loss(larger, labels), loss(two, labels, resize=True)
    torch.testing.assert_close(got, expected)
    expected.backward()
    got.backward()
    torch.testing.assert_close(two.grad, one.grad)


def test_equal_class_weights_are_none(batch):
    torch.testing.assert_close(
        CATSegBCELoss(class_weight=[1] * CLASSES)(*batch), catseg_bce(*batch)
    )
    with pytest.raises(ValueError, match='class_weight has 2 values, but the logits are of 4'):
        CATSegBCELoss(class_weight=[1, 2])(*batch)
