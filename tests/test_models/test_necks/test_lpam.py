import math

import pytest
import torch
import torch.nn.functional as F
from mmseg.registry import MODELS

from infoclip_mmseg.models.necks.lpam import LPAM, relation_map

B, H, W, T, D = 2, 3, 4, 5, 16
# torch before 2.4 has no float16 autocast on the CPU
HALF = [
    pytest.param(
        torch.float16, marks=pytest.mark.skipif(torch.__version__ < '2.4', reason='old torch')
    ),
    torch.bfloat16,
]


@pytest.fixture
def embeddings():
    generator = torch.Generator().manual_seed(0)
    image = torch.randn(B, D, H, W, generator=generator)
    return image, torch.randn(B, T, D, generator=generator)


@pytest.fixture
def lpam():
    torch.manual_seed(0)
    module = LPAM(D)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return module


def reference(lpam, dense, label):
    """The relation of one position and one class, term by term."""

    def normed(x, norm):
        x = (x - x.mean()) / torch.sqrt(x.var(unbiased=False) + norm.eps)
        return x * norm.weight + norm.bias

    dense_normed, label_normed = normed(dense, lpam.image_norm), normed(label, lpam.text_norm)
    query = lpam.query_proj.weight @ dense_normed + lpam.query_proj.bias
    key = lpam.key_proj.weight @ label_normed + lpam.key_proj.bias
    if lpam.residual == 'cosine':
        return query @ key / math.sqrt(D) + dense @ label / (dense.norm() * label.norm())
    return query @ key / math.sqrt(D) + dense_normed @ label_normed


@pytest.mark.parametrize('residual', ['cosine', 'dot'])
def test_relation_follows_the_formula(lpam, embeddings, residual):
    lpam.residual = residual
    image, text = embeddings
    relation = lpam(image, text)
    assert relation.shape == (B, H * W, T)
    for b, y, x, t in [(0, 0, 0, 0), (0, 1, 2, 3), (1, 2, 1, 4), (1, 0, 3, 2)]:
        expected = reference(lpam, image[b, :, y, x], text[b, t])
        torch.testing.assert_close(relation[b, y * W + x, t], expected)


def test_parameter_count():
    assert sum(p.numel() for p in LPAM(512).parameters()) == 527_360


def test_flat_and_spatial_images_agree(lpam, embeddings):
    image, text = embeddings
    flat = image.flatten(2).transpose(1, 2)
    torch.testing.assert_close(lpam(flat, text), lpam(image, text))


def test_shared_text_equals_repeated_text(lpam, embeddings):
    image, text = embeddings
    torch.testing.assert_close(lpam(image, text[0]), lpam(image, text[:1].expand(B, -1, -1)))


def test_every_parameter_and_both_inputs_get_gradients(lpam, embeddings):
    image, text = (x.requires_grad_() for x in embeddings)
    lpam(image, text).square().sum().backward()
    for tensor in (image, text, *lpam.parameters()):
        assert tensor.grad.abs().max() > 0


def test_gradcheck():
    lpam = LPAM(4).double()
    image = torch.randn(2, 3, 4, dtype=torch.float64, requires_grad=True)
    text = torch.randn(2, 4, dtype=torch.float64, requires_grad=True)
    assert lpam(image, text).dtype == torch.float64
    assert torch.autograd.gradcheck(lpam, (image, text))


@pytest.mark.parametrize('residual', ['cosine', 'dot'])
@pytest.mark.parametrize('dtype', HALF)
def test_autocast_keeps_the_map_in_float32(embeddings, dtype, residual):
    lpam = LPAM(D, residual=residual)
    image, text = embeddings
    expected = lpam(image, text)
    with torch.autocast('cpu', dtype=dtype):
        relation = lpam(image, text)
    assert relation.dtype == torch.float32
    torch.testing.assert_close(relation, expected, atol=0.1, rtol=0.02)


@pytest.mark.parametrize('cosine', [True, False])
def test_half_precision_does_not_overflow(cosine):
    rows = torch.full((1, 2, 64), 300.0, dtype=torch.float16)
    with torch.autocast('cpu', dtype=torch.bfloat16):
        relation = relation_map(rows, rows[0], rows, rows[0], cosine=cosine)
    expected = 64 * 300.0**2 / 8 + (1 if cosine else 64 * 300.0**2)
    torch.testing.assert_close(relation, torch.full((1, 2, 2), expected))


def test_cosine_is_the_residual(embeddings):
    image, text = embeddings[0].flatten(2).transpose(1, 2), embeddings[1]
    zero = torch.zeros_like
    relation = relation_map(zero(image), zero(text), image, text)
    expected = F.cosine_similarity(image[:, :, None], text[:, None], dim=-1)
    torch.testing.assert_close(relation, expected)


def test_built_from_the_registry():
    lpam = MODELS.build(dict(type='LPAM', embed_dim=8, residual='dot'))
    assert lpam(torch.randn(1, 8, 2, 2), torch.randn(3, 8)).shape == (1, 4, 3)


def test_bad_options_are_refused():
    with pytest.raises(ValueError, match='needs embed_dim'):
        MODELS.build(dict(type='LPAM'))
    with pytest.raises(ValueError, match="'cosine' or 'dot'"):
        LPAM(8, residual='none')


@pytest.mark.parametrize(
    'image, text',
    [
        ((2, 6, 8), (5, D)),
        ((2, 6, D), (5, 8)),
        ((2, 6, D), (3, 5, D)),
        ((2, 8, 3, 4), (5, D)),
        ((6, D), (5, D)),
        ((2, 6, D), (D,)),
    ],
)
def test_shapes_that_do_not_fit_are_refused(lpam, image, text):
    with pytest.raises(ValueError, match='image must be'):
        lpam(torch.randn(image), torch.randn(text))
