import math

import numpy as np
import pytest
import torch

from infoclip_mmseg.losses.entropy import (
    gram_matrix,
    joint_entropy,
    joint_gram,
    mutual_information,
    renyi_entropy,
)

ALPHAS = [0.1, 0.5, 1.0, 1.01, 2.0, 3.0, 20.0]
# torch before 2.4 has no float16 autocast on the CPU
HALF = [
    pytest.param(
        torch.float16, marks=pytest.mark.skipif(torch.__version__ < '2.4', reason='old torch')
    ),
    torch.bfloat16,
]


def random_features(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=dtype)


def numpy_entropy(gram: np.ndarray, alpha: float) -> float:
    eigenvalues = np.linalg.eigvalsh(gram)
    eigenvalues = eigenvalues[eigenvalues > 1e-12] / eigenvalues.sum()  # a trace of exactly 1
    if alpha == 1:
        return float(-(eigenvalues * np.log2(eigenvalues)).sum())
    return float(np.log2((eigenvalues**alpha).sum()) / (1 - alpha))


def test_gram_matrix_is_the_normalised_product_over_its_trace():
    features = random_features(5, 7)
    unit = features.numpy() / np.linalg.norm(features.numpy(), axis=1, keepdims=True)
    expected = unit @ unit.T
    np.testing.assert_allclose(gram_matrix(features), expected / np.trace(expected), atol=1e-6)


@pytest.mark.parametrize('alpha', ALPHAS)
def test_identical_rows_have_zero_bits(alpha):
    gram = gram_matrix(random_features(1, 9).expand(6, 9))
    assert renyi_entropy(gram, alpha).item() == pytest.approx(0.0, abs=2e-5)


@pytest.mark.parametrize('alpha', ALPHAS)
@pytest.mark.parametrize('n', [1, 2, 5, 8])
def test_orthogonal_rows_have_log2_n_bits(alpha, n):
    rows = torch.linalg.qr(random_features(8, 8))[0][:n] * torch.arange(1, n + 1)[:, None]
    gram = gram_matrix(rows)
    assert renyi_entropy(gram, alpha).item() == pytest.approx(math.log2(n), abs=2e-5)
    assert mutual_information(gram, gram, alpha).item() == pytest.approx(math.log2(n), abs=6e-5)


@pytest.mark.parametrize('alpha', ALPHAS)
def test_entropy_matches_numpy(alpha):
    gram = gram_matrix(random_features(6, 4, dtype=torch.float64))
    assert renyi_entropy(gram, alpha).item() == pytest.approx(
        numpy_entropy(gram.numpy(), alpha), abs=1e-9
    )


@pytest.mark.parametrize('alpha', [0.9, 0.99, 0.999999, 1.000001, 1.01, 1.1, 1.49, 1.51])
def test_orders_near_one_keep_their_digits(alpha):
    gram = gram_matrix(random_features(6, 9))  # float32
    expected = numpy_entropy(gram.double().numpy(), alpha)
    assert renyi_entropy(gram, alpha).item() == pytest.approx(expected, abs=1e-6)
    orthogonal = gram_matrix(torch.eye(8, 8) * torch.arange(1, 9)[:, None])
    assert renyi_entropy(orthogonal, alpha).item() == pytest.approx(3.0, abs=1e-6)


def test_the_entropy_is_continuous_in_its_order_at_one():
    gram = gram_matrix(random_features(6, 4, dtype=torch.float64))
    entropies = [renyi_entropy(gram, 1 + d).item() for d in (-1e-3, -1e-9, 0, 1e-9, 1e-3)]
    assert entropies == sorted(entropies, reverse=True)
    assert entropies[1] - entropies[3] == pytest.approx(
        1e-6 * (entropies[0] - entropies[4]), rel=0.01
    )


def test_fast_path_equals_eigenvalues_and_is_their_limit():
    gram = gram_matrix(random_features(6, 4, dtype=torch.float64))
    fast = renyi_entropy(gram, 2.0)
    by_eigenvalues = -torch.linalg.eigvalsh(gram).square().sum().log2()
    torch.testing.assert_close(fast, by_eigenvalues, atol=1e-12, rtol=0)
    torch.testing.assert_close(fast, renyi_entropy(gram, 2.0 + 1e-9), atol=1e-8, rtol=0)
    shannon = renyi_entropy(gram, 1.0)
    torch.testing.assert_close(shannon, renyi_entropy(gram, 1.0 + 1e-6), atol=1e-5, rtol=0)
    assert renyi_entropy(gram, 0.5) > shannon > fast


def test_joint_gram_is_the_hadamard_product_with_trace_one():
    x, y = gram_matrix(random_features(5, 3)), gram_matrix(random_features(5, 4, seed=1))
    expected = (x * y) / (x * y).trace()
    torch.testing.assert_close(joint_gram(x, y), expected)
    assert joint_gram(x, y, x).trace().item() == pytest.approx(1.0, abs=1e-6)
    torch.testing.assert_close(joint_entropy(x, y), renyi_entropy(expected))


def test_mutual_information_takes_tuples_as_joint_variables():
    x, y, z = (gram_matrix(random_features(5, 3, seed=seed)) for seed in range(3))
    expected = joint_entropy(x, y) + joint_entropy(z) - joint_entropy(x, y, z)
    torch.testing.assert_close(mutual_information((x, y), z), expected)
    torch.testing.assert_close(mutual_information(z, [x, y]), expected)
    assert expected > 0


def test_all_equal_gram_is_neutral_in_the_joint_entropy():
    x, equal = gram_matrix(random_features(5, 3)), gram_matrix(torch.ones(5, 2))
    torch.testing.assert_close(joint_entropy(x, equal), renyi_entropy(x))


@pytest.mark.parametrize('alpha', [0.5, 1.0, 2.0])
def test_leading_batch_dimensions(alpha):
    features = random_features(2, 3, 5, 4)
    entropies = renyi_entropy(gram_matrix(features), alpha)
    assert entropies.shape == (2, 3)
    single = renyi_entropy(gram_matrix(features[1, 2]), alpha)
    torch.testing.assert_close(entropies[1, 2], single)


@pytest.mark.parametrize('alpha', [0.5, 1.0, 2.0])
@pytest.mark.parametrize('rows', ['one zero', 'all zero', 'identical'])
def test_degenerate_rows_stay_finite(alpha, rows):
    features = random_features(4, 6)
    if rows == 'identical':
        features = features[:1].repeat(4, 1)
    else:
        features[: 1 if rows == 'one zero' else 4] = 0
    features.requires_grad_()
    x = gram_matrix(features)
    entropy = joint_entropy(x, gram_matrix(random_features(4, 3, seed=1)), alpha=alpha)
    (entropy + renyi_entropy(x, alpha)).backward()
    assert entropy.isfinite()
    assert features.grad.isfinite().all()
    assert features.grad.abs().max() < 100


def test_single_sample_has_exactly_zero_bits_and_gradient():
    features = random_features(1, 1000).requires_grad_()
    entropy = renyi_entropy(gram_matrix(features))
    entropy.backward()
    assert entropy.item() == 0
    assert torch.count_nonzero(features.grad) == 0


@pytest.mark.parametrize('alpha', [0.5, 1.0, 2.0, 3.0])
def test_gradcheck(alpha):
    def information(x, y):
        return mutual_information(gram_matrix(x), gram_matrix(y), alpha)

    x = random_features(2, 4, 6, dtype=torch.float64).requires_grad_()
    y = random_features(2, 4, 5, seed=1, dtype=torch.float64).requires_grad_()
    assert torch.autograd.gradcheck(information, (x, y))


@pytest.mark.parametrize('alpha', [0.0, -1.0, math.inf, math.nan])
def test_bad_order_is_refused(alpha):
    with pytest.raises(ValueError, match='alpha is'):
        renyi_entropy(torch.eye(2) / 2, alpha)


def test_grams_of_other_sizes_are_refused():
    with pytest.raises(ValueError, match='same samples'):
        joint_gram(torch.eye(2) / 2, torch.eye(3) / 3)
    with pytest.raises(ValueError, match='at least one'):
        joint_gram()


@pytest.mark.parametrize('alpha', [1.0, 2.0])
@pytest.mark.parametrize('dtype', HALF)
def test_float32_under_autocast_and_for_half_input(dtype, alpha):
    features = random_features(4, 300)
    with torch.autocast('cpu', dtype=dtype):
        inside = renyi_entropy(gram_matrix(features), alpha)
    assert inside.dtype == torch.float32
    assert inside.equal(renyi_entropy(gram_matrix(features), alpha))
    large = (300 * features).to(dtype)
    from_half = renyi_entropy(gram_matrix(large), alpha)
    assert from_half.dtype == torch.float32
    torch.testing.assert_close(from_half, renyi_entropy(gram_matrix(large.float()), alpha))
