"""An exported file against the segmentor that it came from."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from infoclip_mmseg.utils.tensors import resize

MAX_DIFFERENCE = 1e-3
MIN_EQUAL = 0.999

Run = Callable[[Tensor, Tensor | None], Tensor]


class Agreement(NamedTuple):
    """How far an exported file agrees with PyTorch on some images.

    Attributes:
        difference: Largest absolute difference of two logits.
        equal: Share of the pixels, at the size of the images, whose label is the same.
        seconds: Of the exported file, for an image.
        seconds_torch: Of the segmentor, for an image.
    """

    difference: float
    equal: float
    seconds: float
    seconds_torch: float

    @property
    def good(self) -> bool:
        """Whether both are within ``MAX_DIFFERENCE`` and ``MIN_EQUAL``."""
        return self.difference <= MAX_DIFFERENCE and self.equal >= MIN_EQUAL


def run_export(path: Path) -> Run:
    """An exported file as a function of images (B, 3, h, w) and, where it takes it, text.

    Raises:
        ImportError: An ONNX file, and onnxruntime is missing.
    """
    if path.suffix == '.pt2':
        module = torch.export.load(path).module()
        return lambda images, text: module(images, *([] if text is None else [text]))
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    # The arena grows in powers of two and gives nothing back.
    options.enable_cpu_mem_arena = False
    session = onnxruntime.InferenceSession(str(path), options, ['CPUExecutionProvider'])

    def run(images: Tensor, text: Tensor | None) -> Tensor:
        feed = {'images': images.numpy()}
        if text is not None:
            feed['text'] = text.numpy()
        return torch.from_numpy(session.run(None, feed)[0])

    return run


@torch.no_grad()
def check_export(
    path: Path,
    model: Any,
    images: Sequence[np.ndarray],
    text: Tensor | None,
    batch_size: int = 1,
) -> Agreement:
    """Run a file and the segmentor on images and compare.

    Args:
        path: .onnx or .pt2.
        model: The segmentor with the file's vocabulary.
        images: RGB arrays (h, w, 3), uint8, of any size; they are resized to the input size.
        text: Text embeddings (T, P, C) where the file takes them, else None.
        batch_size: Images that go together; memory grows with it.
    """
    run = run_export(path)
    tensors = [torch.from_numpy(image.copy()).permute(2, 0, 1)[None].float() for image in images]
    inputs = [resize(tensor, model.input_size) for tensor in tensors]
    difference, equal, pixels, seconds, seconds_torch = 0.0, 0, 0, 0.0, 0.0
    for start in range(0, len(images), batch_size):
        stop = start + batch_size
        batch = torch.cat(inputs[start:stop])
        begin = time.perf_counter()
        expected = model.segment(batch, mode='whole')
        middle = time.perf_counter()
        got = run(batch, text)
        seconds += time.perf_counter() - middle
        seconds_torch += middle - begin
        if got.shape != expected.shape:
            raise ValueError(f'{path} gave logits {tuple(got.shape)}, not {tuple(expected.shape)}')
        difference = max(difference, float((got - expected).abs().max()))
        for a, b, image in zip(got, expected, tensors[start:stop]):
            size = (image.shape[-2], image.shape[-1])
            same = resize(a[None], size).argmax(1) == resize(b[None], size).argmax(1)
            equal, pixels = equal + int(same.sum()), pixels + same.numel()
    return Agreement(difference, equal / pixels, seconds / len(images), seconds_torch / len(images))
