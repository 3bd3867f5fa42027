"""What is exported: one view of an image to the logits of every class, and its traced program."""

from __future__ import annotations

from typing import Any

import torch
from mmengine.utils import digit_version
from torch import Tensor, nn

# The TorchScript exporter of older versions fixes the batch size: it computes the sizes of
# `unflatten` while it traces.
MIN_TORCH = '2.9'
# Most classes of a program whose text embeddings are an input, where the head picks some of them.
MAX_CLASSES = 4096


class ExportedView(nn.Module):
    """The segmentor's mode 'whole', without text tower, resizing and training parts.

    Its modules are shared, not copied. Text embeddings (T, P, C) are held as a constant; None takes
    them as an input.
    """

    pixel_mean: Tensor
    pixel_std: Tensor
    text_embeddings: Tensor | None

    def __init__(self, model: Any, text: Tensor | None = None) -> None:
        super().__init__()
        self.visual = model.backbone.clip.visual
        self.decode_head = model.decode_head
        self.guidance = model.guidance
        # The segmentor is no submodule: its text tower is none of the program's weights.
        self._extract = (model.extract_feat,)
        # Names that no traced operation gets: onnxscript gives folded constants the names of those.
        self.register_buffer('pixel_mean', model.data_preprocessor.mean.detach().float())
        self.register_buffer('pixel_std', model.data_preprocessor.std.detach().float())
        self.register_buffer('text_embeddings', None if text is None else text.detach())
        self.eval()

    def forward(self, images: Tensor, text: Tensor | None = None) -> Tensor:
        """Logits (B, T, 4H, 4W) on the grid (H, W) of patches.

        Images are RGB (B, 3, *input_size), 0..255, float32; the text, where it is not held,
        L2-normalised embeddings (T, P, C).
        """
        features = self._extract[0]((images - self.pixel_mean) / self.pixel_std)
        return self.decode_head(features, self.text_embeddings if text is None else text)


def class_range(num_classes: int, pad_len: int) -> tuple[int, int]:
    """Least and largest T of a program that is traced with ``num_classes`` text embeddings.

    The head does other things with less than ``pad_len`` classes (pads), just as many, and more
    (picks), and a trace holds one of these.
    """
    if not pad_len:
        return 1, MAX_CLASSES
    if num_classes == pad_len:
        return pad_len, pad_len
    return (1, pad_len - 1) if num_classes < pad_len else (pad_len + 1, MAX_CLASSES)


def export_program(model: Any, text: Tensor, bake: bool = True) -> torch.export.ExportedProgram:
    """Trace a segmentor, on a CPU in float32, with ``torch.export``; its batch size stays free.

    Text embeddings (T, P, C) are held as a constant (``bake``), or are the second input, with T
    free within :func:`class_range`.

    Raises:
        ImportError: This PyTorch cannot; see ``MIN_TORCH``.
        ValueError: No ``input_size``, several words a class, or too many that are not held.
    """
    if digit_version(torch.__version__) < digit_version(MIN_TORCH):
        raise ImportError(
            f'exporting needs PyTorch {MIN_TORCH} or newer, this is {torch.__version__}. '
            'Checkpoints can be exported in another environment than they were trained in'
        )
    if model.input_size is None:
        raise ValueError('an export has a fixed input size: set model.input_size')
    if len(text) != len(model.dataset_meta['classes']):
        raise ValueError(
            f'there are {len(text)} words for {len(model.dataset_meta["classes"])} classes: an '
            "export has one embedding a class, set model.synonyms to 'first' or 'average'"
        )
    if not bake and len(text) > MAX_CLASSES:
        raise ValueError(f'text as an input: at most {MAX_CLASSES} classes, got {len(text)}')
    batch = torch.export.Dim('batch', min=1)
    images = torch.zeros(2, 3, *model.input_size)
    view = ExportedView(model, text if bake else None)
    inputs: tuple[Tensor, ...] = (images,)
    shapes: tuple[dict, ...] = ({0: batch},)
    if not bake:
        low, high = class_range(len(text), model.decode_head.pad_len)
        free = high > low
        # A size of 1 in the example would be taken for a constant.
        text = text.repeat(2, 1, 1) if free and len(text) == 1 < high - 1 else text
        inputs += (text.detach(),)
        shapes += ({0: torch.export.Dim('classes', min=low, max=high)} if free else {},)
    head = model.decode_head
    previous, head.class_chunk = head.class_chunk, 0  # so that a trace holds each layer once
    try:
        with torch.no_grad():
            # Run once before: cached tensors must be real ones, not those of the trace.
            view(images[:1], *inputs[1:])
            return torch.export.export(view, inputs, dynamic_shapes=shapes, strict=False)
    finally:
        head.class_chunk = previous
