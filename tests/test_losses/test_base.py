import pytest
import torch
from mmseg.registry import MODELS

from infoclip_mmseg.losses import (
    Branch,
    DistillationLoss,
    KLDistillationLoss,
    MITransferLoss,
    RepresentationCompensationLoss,
    SelfDistillationLoss,
    build_losses,
    cosine_relation,
    distill,
)
from infoclip_mmseg.models.necks.lpam import LPAM

EVERY = [
    dict(type='InfoBottleneckLoss'),
    dict(type='MITransferLoss'),
    dict(type='KLDistillationLoss', temperature=0.1),
    dict(type='SelfDistillationLoss'),
    dict(type='RepresentationCompensationLoss'),
]
NAMES = ['loss_ib', 'loss_mi', 'loss_kl', 'loss_sd', 'loss_rc']


def embeddings(seed=0, batch=3, classes=7, grid=(5, 6), by_image=False):
    generator = torch.Generator().manual_seed(seed)
    dense = torch.randn(batch, 8, *grid, generator=generator)
    shape = (batch, classes, 8) if by_image else (classes, 8)
    return dense, torch.randn(shape, generator=generator)


def branch(relate=None, trained=False, **options):
    dense, text = embeddings(**options)
    return Branch(dense.requires_grad_(trained), text.requires_grad_(trained), relate)


@pytest.mark.parametrize('by_image', [False, True])
def test_without_a_module_the_relation_is_the_cosine(by_image):
    made = branch(by_image=by_image)
    for b, y, x, t in [(0, 0, 0, 0), (1, 2, 4, 3), (2, 4, 5, 6)]:
        vector = made.dense[b, :, y, x]
        word = made.text[b, t] if by_image else made.text[t]
        expected = (vector @ word / vector.norm() / word.norm()).item()
        assert made.relation[b, 6 * y + x, t].item() == pytest.approx(expected, abs=1e-6)
    assert made.relation.shape == (3, 30, 7)


def test_cosines_are_float32_under_autocast():
    dense, text = embeddings()
    image = dense.flatten(2).mT
    with torch.autocast('cpu', dtype=torch.bfloat16):
        inside = cosine_relation(image, text)
    assert inside.dtype == torch.float32 and inside.equal(cosine_relation(image, text))


def test_every_loss_gets_what_it_compares():
    lpam = LPAM(8)
    teacher, student = branch(lpam), branch(lpam, seed=1)
    losses = build_losses(EVERY)
    result = distill(teacher, student, losses)
    assert list(result) == NAMES
    image, relations = teacher.dense.flatten(2).mT, []
    for side in (teacher, student):
        relations.append(lpam(side.dense, side.text))
    expected = [
        losses[0](relations[0], image, teacher.text),
        losses[1](*relations),
        losses[2](*relations),
        losses[3](teacher.dense, student.dense),
        losses[4](teacher.dense, student.dense),
    ]
    for value, other in zip(result.values(), expected):
        assert torch.equal(value, other)


def test_the_relation_is_computed_once_and_only_where_it_is_read():
    calls = []

    def relate(image, text):
        calls.append(image.shape)
        return cosine_relation(image, text)

    teacher, student = branch(relate), branch(relate, seed=1)
    distill(teacher, student, [SelfDistillationLoss(), RepresentationCompensationLoss()])
    assert not calls
    distill(teacher, student, [MITransferLoss(), KLDistillationLoss()])
    assert calls == [(3, 30, 8)] * 2


@pytest.mark.parametrize('config', EVERY[1:], ids=NAMES[1:])
@pytest.mark.parametrize('by_image', [False, True])
def test_the_student_alone_gets_a_gradient(config, by_image):
    teacher = branch(by_image=by_image)
    student = branch(seed=1, trained=True, by_image=by_image)
    [value] = distill(teacher, student, build_losses([config])).values()
    value.backward()
    assert teacher.dense.grad is None and teacher.text.grad is None
    assert all(image.abs().max() > 0 for image in student.dense.grad)
    reads_text = config['type'] in ('MITransferLoss', 'KLDistillationLoss')
    assert (student.text.grad is not None) is reads_text


def test_cost_volume_information_is_that_of_gram_matrices_by_hand():
    """-I of cosine maps at alpha 2, from B x B Gram matrices, in float64 and loops."""
    teacher, student = branch(), branch(seed=1)

    def gram(side):
        rows = []
        for dense in side.dense.double():
            cosines = [
                [
                    torch.cosine_similarity(dense[:, y, x], word.double(), dim=0)
                    for word in side.text
                ]
                for y in range(5)
                for x in range(6)
            ]
            rows.append(torch.tensor(cosines).flatten())
        rows = torch.stack([row / row.norm() for row in rows])
        return rows @ rows.T / 3

    def entropy(matrix):
        return -(matrix**2).sum().log2()

    first, second = gram(teacher), gram(student)
    joint = first * second / (first * second).trace()
    expected = entropy(joint) - entropy(first) - entropy(second)
    [value] = distill(teacher, student, [MITransferLoss()]).values()
    assert value.item() == pytest.approx(expected.item(), abs=1e-5)


def test_kl_trains_lpam_through_the_student_only():
    lpam = LPAM(8)
    teacher, student = branch(lpam), branch(lpam, seed=1, trained=True)
    distill(teacher, student, [KLDistillationLoss()])['loss_kl'].backward()
    gradient = lpam.query_proj.weight.grad.clone()
    lpam.zero_grad()
    fixed = teacher.relation.detach()
    again = Branch(student.dense, student.text, lpam)
    KLDistillationLoss()(fixed, again.relation).backward()
    torch.testing.assert_close(lpam.query_proj.weight.grad, gradient)


@pytest.mark.parametrize(
    'dense, text',
    [
        ((2, 8, 30), (7, 8)),
        ((2, 8, 5, 6), (7, 9)),
        ((2, 8, 5, 6), (3, 7, 8)),
        ((2, 8, 5, 6), (8,)),
    ],
)
def test_embeddings_that_do_not_fit_are_refused(dense, text):
    with pytest.raises(ValueError, match='dense embeddings must be'):
        Branch(torch.zeros(dense), torch.zeros(text))


def test_other_losses_and_equal_names_are_refused():
    with pytest.raises(TypeError, match='CATSegBCELoss cannot compare'):
        build_losses([dict(type='CATSegBCELoss')])
    with pytest.raises(ValueError, match='loss_name of its own'):
        build_losses([dict(type='MITransferLoss'), dict(type='MITransferLoss')])
    twice = [dict(type='MITransferLoss'), dict(type='MITransferLoss', loss_name='loss_2')]
    assert len(build_losses(twice)) == 2


def test_a_loss_of_ones_own_needs_one_method():
    @MODELS.register_module(force=True)
    class CentreLoss(DistillationLoss):
        def __init__(self):
            super().__init__(loss_weight=1.0, loss_name='loss_centre')

        def distill(self, teacher, student):
            return (teacher.dense.mean((2, 3)) - student.dense.mean((2, 3))).square().mean()

    teacher = branch()
    try:
        assert distill(teacher, teacher, build_losses([dict(type='CentreLoss')])) == dict(
            loss_centre=torch.tensor(0.0)
        )
    finally:
        MODELS._module_dict.pop('CentreLoss')
