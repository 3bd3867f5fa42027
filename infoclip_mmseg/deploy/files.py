"""Exported programs and text embeddings as files: written, run, compared with the segmentor."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from infoclip_mmseg.deploy.view import class_range
from infoclip_mmseg.utils.tensors import resize
from infoclip_mmseg.version import __version__

OPSET = 18
METADATA_FILE = 'metadata.json'
# A protobuf file holds at most 2 GiB; what does not fit goes beside it.
_PROTOBUF_LIMIT = 2_000_000_000
MAX_DIFFERENCE = 1e-3
MIN_EQUAL = 0.999

Run = Callable[[Tensor, Tensor | None], Tensor]


def describe(model: Any, config: str, bake: bool) -> dict[str, Any]:
    """Metadata that goes into an exported file of a segmentor and the name of its config.

    With ``bake`` the file holds the text embeddings. The palette is RGB, 0..255; ``input_size``
    height and width in pixels; ``mean`` and ``std`` (of 0..255) are already applied inside;
    ``threshold`` is the probability above which a pixel is of a single class.
    """
    meta, preprocessor = model.dataset_meta, model.data_preprocessor
    num_classes = len(meta['classes'])
    low, high = class_range(num_classes, model.decode_head.pad_len)
    return dict(
        config=config,
        classes=list(meta['classes']),
        palette=[list(map(int, colour)) for colour in meta['palette']],
        input_size=list(model.input_size),
        mean=preprocessor.mean.flatten().tolist(),
        std=preprocessor.std.flatten().tolist(),
        threshold=model.decode_head.threshold,
        text='baked' if bake else 'input',
        min_classes=num_classes if bake else low,
        max_classes=num_classes if bake else high,
        infoclip_mmseg=__version__,
    )


def save_pt2(program: torch.export.ExportedProgram, path: Path, metadata: dict[str, Any]) -> None:
    """Write a .pt2 file; the metadata is its extra file 'metadata.json'."""
    text = json.dumps(metadata, ensure_ascii=False)
    torch.export.save(program, path, extra_files={METADATA_FILE: text})


def save_onnx(program: torch.export.ExportedProgram, path: Path, metadata: dict[str, Any]) -> None:
    """Write an ONNX file of opset ``OPSET``; each entry of the metadata is a JSON string in it."""
    result = torch.onnx.export(
        program, output_names=['logits'], opset_version=OPSET, dynamo=True, verbose=False
    )
    if result is None:
        raise RuntimeError('torch.onnx.export returned nothing')
    for key, value in metadata.items():
        result.model.metadata_props[key] = json.dumps(value, ensure_ascii=False)
    tensors = [*program.state_dict.values(), *program.constants.values()]
    size = sum(x.numel() * x.element_size() for x in tensors if isinstance(x, Tensor))
    result.save(str(path), external_data=size > _PROTOBUF_LIMIT)


def save_text(path: Path, text: Tensor, metadata: dict[str, Any]) -> None:
    """Write text embeddings (T, P, C) for a program that takes them as an input.

    The .npz file gets ``text`` float32, ``classes`` (T,) and ``palette`` (T, 3) of the metadata,
    and can be read without pickle.
    """
    palette = np.asarray(metadata['palette'], dtype=np.uint8)
    classes = np.asarray(metadata['classes'], dtype=np.str_)
    np.savez(path, text=text.numpy().astype(np.float32), classes=classes, palette=palette)


class Agreement(NamedTuple):
    """How far an exported file agrees with PyTorch on some images.

    Largest absolute difference of two logits; share of the pixels, at the size of the images, whose
    label is the same; seconds for an image of the exported file and of the segmentor.
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
    """An exported file as a function of images (B, 3, h, w) and, where it takes it, text."""
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
    path: Path, model: Any, images: Sequence[np.ndarray], text: Tensor | None, batch_size: int = 1
) -> Agreement:
    """Run a file, .onnx or .pt2, and the segmentor with its vocabulary on images and compare.

    The images, RGB (h, w, 3), uint8, of any size, are resized to the input size. Text embeddings
    (T, P, C) are wanted where the file takes them. Memory grows with ``batch_size``.
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
