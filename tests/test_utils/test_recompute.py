"""What is computed again in the backward pass, by counting operations."""

from functools import partial

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from toys import RECOMPUTES, TOY_CLIP, TOY_MODEL

from infoclip_mmseg.models.backbones.dual_encoder import CLIPDualEncoder, ImageFeatures
from infoclip_mmseg.models.decode_heads.cat_seg import CATSegHead
from infoclip_mmseg.models.layers import chunks
from infoclip_mmseg.utils import recompute
from infoclip_mmseg.utils.recompute import check_recompute

MODES = (False, True, 'selective')
IMAGES = torch.linspace(-1, 1, 2 * 3 * 32 * 32).view(2, 3, 32, 32).sin()
pytestmark = pytest.mark.skipif(
    'selective' not in RECOMPUTES, reason='torch 2.4 or later has selective checkpointing'
)


def cost(run, parameters) -> tuple[int, int, list[torch.Tensor]]:
    """Operations of a step and of its forward pass, and the gradients."""
    with FlopCounterMode(display=False) as counter:
        loss = run().square().mean()
        forward = counter.get_total_flops()
        gradients = torch.autograd.grad(loss, parameters)
    return counter.get_total_flops(), forward, list(gradients)


def build_head(with_cp, **options) -> CATSegHead:
    sizes = {key: value for key, value in TOY_MODEL['decode_head'].items() if key != 'type'}
    return CATSegHead(32, 128, **{**sizes, 'with_cp': with_cp, **options})


def head_inputs() -> tuple[ImageFeatures, torch.Tensor]:
    blocks = tuple(torch.randn(2, 128, 5, 7) for _ in range(2))
    image = ImageFeatures(torch.randn(2, 32, 5, 7), torch.randn(2, 32), blocks)
    return image, torch.randn(6, 1, 32)


def compare(run, build, parameters):
    """Step without recomputation, with all of it, and selective, each with its own model."""
    counts, gradients = {}, {}
    for with_cp in MODES:
        torch.manual_seed(0)
        model = build(with_cp).double().train()
        total, forward, found = cost(lambda model=model: run(model), parameters(model))
        counts[with_cp], gradients[with_cp] = (total, forward), found
    for with_cp in MODES[1:]:
        for plain, recomputed in zip(gradients[False], gradients[with_cp], strict=True):
            torch.testing.assert_close(recomputed, plain, rtol=1e-9, atol=1e-12)
    return counts


@pytest.mark.parametrize('pooling_size', [1, 2])
@pytest.mark.parametrize('pad_len', [0, 10])
def test_head_runs_no_large_product_again(monkeypatch, pooling_size, pad_len):
    """As on a GPU, where no backward pass of our own takes the place of checkpointing."""
    monkeypatch.setattr(chunks, 'recompute_on_cpu', lambda *_: None)
    image, text = head_inputs()
    image = image._replace(dense=image.dense.double(), blocks=[b.double() for b in image.blocks])
    build = partial(build_head, pooling_size=pooling_size, pad_len=pad_len)
    counts = compare(
        lambda head: head(image, text.double()), build, lambda head: list(head.parameters())
    )
    (plain, forward), (whole, _), (selective, _) = (counts[with_cp] for with_cp in MODES)
    assert plain < whole <= plain + forward
    assert selective == plain


def test_mixed_precision(monkeypatch):
    """Weights that autocast has cast before, for another chunk, are cast in the region again."""
    monkeypatch.setattr(chunks, 'recompute_on_cpu', lambda *_: None)
    inputs, gradients = head_inputs(), []
    for with_cp in (False, 'selective'):
        torch.manual_seed(0)
        head = build_head(with_cp, class_chunk=3, pooling_size=1).train()
        encoder = CLIPDualEncoder(TOY_CLIP, finetune='full', with_cp=with_cp).train()
        with torch.autocast('cpu', dtype=torch.bfloat16):
            losses = [head(*inputs), *(encoder.encode_pooled(x) for x in (IMAGES, IMAGES + 1))]
        assert torch.is_autocast_cache_enabled()
        sum(loss.float().square().mean() for loss in losses).backward()
        weights = [*head.parameters(), *encoder.clip.visual.parameters()]
        gradients.append([p.grad for p in weights if p.grad is not None])
    for plain, selective in zip(*gradients, strict=True):
        torch.testing.assert_close(selective, plain, rtol=0.02, atol=2e-3)


@pytest.mark.filterwarnings('ignore')
def test_compiled_head_has_the_same_gradients(monkeypatch):
    monkeypatch.setattr(chunks, 'recompute_on_cpu', lambda *_: None)
    head, inputs = build_head('selective').train(), head_inputs()
    gradients = []
    for run in (head, torch.compile(head, backend='aot_eager')):
        loss = run(*inputs).square().mean()
        gradients.append(torch.autograd.grad(loss, list(head.parameters())))
    for eager, compiled in zip(*gradients, strict=True):
        torch.testing.assert_close(compiled, eager, rtol=1e-4, atol=1e-6)


def test_towers_run_no_large_product_again():
    def build(with_cp):
        return CLIPDualEncoder(TOY_CLIP, finetune='full', with_cp=with_cp)

    def trained(encoder):
        return [p for p in encoder.clip.visual.parameters() if p.requires_grad][:20]

    images = torch.randn(2, 3, 32, 48).double()
    counts = compare(lambda encoder: encoder.encode_image(images).dense, build, trained)
    (plain, _), (whole, _), (selective, _) = (counts[with_cp] for with_cp in MODES)
    assert plain < whole
    assert selective == plain


def test_values_of_the_option(monkeypatch):
    assert [check_recompute(with_cp) for with_cp in MODES] == list(MODES)
    with pytest.raises(ValueError, match="'selective', got 'all'"):
        check_recompute('all')
    monkeypatch.delattr(recompute.torch.utils.checkpoint, 'create_selective_checkpoint_contexts')
    assert check_recompute(True)
    with pytest.raises(RuntimeError, match='torch 2.4'):
        check_recompute('selective')


@pytest.mark.parametrize(
    'build',
    [
        lambda: CATSegHead(32, 128, with_cp='all'),
        lambda: CLIPDualEncoder('ViT-B-16', with_cp='all'),
    ],
)
def test_models_refuse_another_value(build):
    with pytest.raises(ValueError, match='with_cp'):
        build()
