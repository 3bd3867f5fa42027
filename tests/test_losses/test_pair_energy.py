"""Entropies of order 2 without Gram matrices, against those with them."""

from __future__ import annotations

import pytest
import torch

from infoclip_mmseg.losses import InfoBottleneckLoss, MITransferLoss, pair_energy
from infoclip_mmseg.losses.alignment import _token_entropies
from infoclip_mmseg.losses.entropy import gram_matrix, joint_entropy, renyi_entropy


def features(n: int, d: int, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(2, n, d, generator=generator) + 1
    x[0, 3] = 0  # a row of zeros is orthogonal to all others
    return x.requires_grad_()


@pytest.mark.parametrize('n', [256, 300, 513])
def test_equal_to_the_gram_matrices_with_gradients(n):
    x, y = features(n, 20, 0), features(n, 7, 1)
    fast = torch.stack([torch.stack(h) for h in _token_entropies(x, y)], dim=1)
    grams = gram_matrix(x), gram_matrix(y)
    slow = torch.stack([renyi_entropy(grams[0]), renyi_entropy(grams[1]), joint_entropy(*grams)])
    torch.testing.assert_close(fast, slow, rtol=1e-5, atol=1e-5)
    weights = torch.tensor([[1.0, -2.0], [0.5, 1.0], [-1.5, 3.0]])
    expected = torch.autograd.grad((slow * weights).sum(), (x, y))
    actual = torch.autograd.grad((fast * weights).sum(), (x, y))
    for one, other in zip(actual, expected):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-3 * other.abs().max().item())


def test_known_answers():
    same = torch.ones(300, 4) / 2
    assert pair_energy.entropy(same).item() == pytest.approx(0, abs=1e-4)
    assert pair_energy.joint_entropy(same, same).item() == pytest.approx(0, abs=1e-4)
    # 300 samples in 4 orthogonal groups of 75: 2 bits; two such groupings crossed: 2 more.
    index = torch.arange(300)
    first, second = torch.eye(4)[index % 4], torch.eye(3)[index % 3]
    assert pair_energy.entropy(first).item() == pytest.approx(2, abs=1e-4)
    crossed = pair_energy.joint_entropy(first, second).item()
    assert crossed == pytest.approx(torch.tensor(12.0).log2().item(), abs=1e-4)


def test_gradcheck(monkeypatch):
    monkeypatch.setattr(pair_energy, '_BLOCK', 3)
    generator = torch.Generator().manual_seed(0)
    rows = [torch.randn(8, 3, generator=generator, dtype=torch.float64) for _ in range(2)]
    rows = [torch.nn.functional.normalize(x, dim=1).requires_grad_() for x in rows]

    def joint(x, y):
        # On the sphere: the diagonal is constant there, as the gradient takes it.
        x, y = (torch.nn.functional.normalize(z, dim=1) for z in (x, y))
        return pair_energy.joint_entropy(x, y)

    assert torch.autograd.gradcheck(joint, rows)


@pytest.mark.parametrize('dtype', [torch.float32, torch.bfloat16])
def test_losses_take_this_way_and_agree_with_eigenvalues(dtype, monkeypatch):
    relation, student = features(300, 11, 0).detach().to(dtype), features(300, 11, 1)
    image, text = features(300, 16, 2).detach(), torch.randn(11, 16)
    calls = []
    real = pair_energy.joint_entropy
    monkeypatch.setattr(pair_energy, 'joint_entropy', lambda *a: calls.append(a) or real(*a))
    for loss, arguments in (
        (MITransferLoss, (relation, student)),
        (InfoBottleneckLoss, (relation, image, text)),
    ):
        with torch.autocast('cpu', dtype=torch.bfloat16):
            fast = loss(samples='token')(*arguments)
            slow = loss(samples='token', alpha=2.0001)(*arguments)
        assert fast.dtype == torch.float32
        torch.testing.assert_close(fast, slow, rtol=1e-3, atol=1e-3)
    assert len(calls) == 4  # two images each
