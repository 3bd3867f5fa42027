"""A model as on a GPU, without one: fake tensors on 'cuda', and what makes a GPU wait."""

from __future__ import annotations

import traceback
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from mmengine.structures import PixelData
from mmseg.structures import SegDataSample
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from infoclip_mmseg.models.text import packing

PACKAGE = str(Path(__file__).resolve().parents[1])
READING = {
    *('_local_scalar_dense', 'item', 'is_nonzero', 'equal', 'nonzero', 'masked_select'),
    *('_unique', '_unique2', 'unique_dim', 'unique_consecutive', 'repeat_interleave', 'bincount'),
}
"""Operators whose value, or the size of whose result, the host has to know."""


class Synchronisations(TorchDispatchMode):
    """Counts, by operator and line, what would make the host wait for a GPU.

    On fake tensors these are copies between devices that block; operators that read values are
    errors there already.
    """

    def __init__(self) -> None:
        super().__init__()
        self.found: Counter[tuple[str, str]] = Counter()

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None):
        kwargs = kwargs or {}
        name = function._overloadpacket.__name__
        if name in READING or _masks(name, args) or _blocks(name, args, kwargs):
            frames = [f for f in traceback.extract_stack() if f.filename.startswith(PACKAGE)]
            frames = [f for f in frames if not f.filename.endswith('rehearsal.py')]
            place = f'{Path(frames[-1].filename).name}: {frames[-1].line}' if frames else ''
            self.found[name, place] += 1
        return function(*args, **kwargs)


def _masks(name: str, args: Any) -> bool:
    """Whether an index is a mask, of which the host has to know how much it holds."""
    if name not in ('index', 'index_put', 'index_put_'):
        return False
    return any(x is not None and x.dtype in (torch.bool, torch.uint8) for x in args[1])


def _blocks(name: str, args: Any, kwargs: Any) -> bool:
    if name == '_to_copy':
        source, target = args[0].device, kwargs.get('device') or args[0].device
    elif name == 'copy_':
        target, source = args[0].device, args[1].device
        kwargs = dict(non_blocking=args[2]) if len(args) > 2 else kwargs
    else:
        return False
    return source.type != torch.device(target).type and not kwargs.get('non_blocking')


def to_fake(module: nn.Module) -> None:
    """Put fake parameters and buffers on 'cuda' in place of a module's; in a FakeTensorMode."""
    for part in module.modules():
        for name, x in part._parameters.items():
            if x is not None:
                fake = torch.empty(x.shape, dtype=x.dtype, device='cuda')
                part._parameters[name] = nn.Parameter(fake, x.requires_grad)
        for name, x in part._buffers.items():
            if x is not None:
                part._buffers[name] = torch.empty(x.shape, dtype=x.dtype, device='cuda')


def pack_vocabulary(model: Any) -> packing.PackedPrompts:
    """A model's prompts ready for its text tower."""
    tokens, tower = model.backbone.tokenizer(list(model.prompts.texts)), model.backbone.text_tower
    ends = packing.end_positions(tower, tokens)
    return packing.pack_prompts(tokens, ends, tower.attn_mask is not None)


@contextmanager
def on_fake_gpu(model: Any, monkeypatch: Any) -> Iterator[Synchronisations]:
    """Run with a model, its teacher included, of fake tensors on 'cuda'.

    The model has run before, so that what is made once and kept is there. How prompts are packed
    follows from their tokens, which the host has: it is taken from a run with real ones.
    """
    encoders = [model.backbone, *([model.teacher.encoder] if model.teacher else [])]
    texts, real = model.prompts.texts, pack_vocabulary(model)

    def known(*_: Any) -> packing.PackedPrompts:
        rows, columns, order, ends = (
            torch.empty(x.shape, dtype=x.dtype)
            for x in (real.tokens, real.positions, real.order, real.layout.ends)
        )
        return real._replace(
            tokens=rows, positions=columns, order=order, layout=real.layout._replace(ends=ends)
        )

    monkeypatch.setattr(packing, 'pack_prompts', known)
    with FakeTensorMode():
        for encoder in encoders:
            encoder.text_encoder.forget()
            encoder.text_encoder._tokens[texts] = torch.empty(len(texts), 77, dtype=torch.int)
            to_fake(encoder)
        for name, part in model.named_children():
            if name != 'data_preprocessor':  # has done its work
                to_fake(part)
        with Synchronisations() as counted:
            yield counted


def batch(size: tuple[int, int], classes: int, device: str = 'cpu') -> tuple[Any, list]:
    """Two normalised images and their samples with labels."""
    labels = torch.randint(0, classes, (2, 1, *size), device=device)
    labels[..., :4, :] = 255
    meta = dict(ori_shape=size, img_shape=size, pad_shape=size)
    samples = [
        SegDataSample(gt_sem_seg=PixelData(data=label), metainfo=dict(meta)) for label in labels
    ]
    return torch.randn(2, 3, *size, device=device), samples
