"""What is exported: a view of an image to the logits of every class; its files and their check."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from mmengine.utils import digit_version
from torch import Tensor, nn

from infoclip_mmseg.utils.tensors import resize
from infoclip_mmseg.version import __version__

# The TorchScript exporter of older versions fixes the batch size: it computes the sizes of
# `unflatten` while it traces.
MIN_TORCH = '2.9'
# Most classes of a program whose text embeddings are an input, where the head picks some of them.
MAX_CLASSES = 4096
OPSET = 18
METADATA_FILE = 'metadata.json'
# A protobuf file holds at most 2 GiB; what does not fit goes beside it.
_PROTOBUF_LIMIT = 2_000_000_000
# Largest difference of two logits, and least share of equal labels: in float32, and of float16.
MAX_DIFFERENCE, MIN_EQUAL = 1e-3, 0.999
MAX_DIFFERENCE_HALF, MIN_EQUAL_HALF = 0.1, 0.99

Run = Callable[[Tensor, Tensor | None], Tensor]


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


def class_range(num_classes: int, pad_len: int, num_decoded: int = 0) -> tuple[int, int]:
    """Least and largest T of a program that is traced with ``num_classes`` text embeddings.

    The head does other things with less than ``pad_len`` classes (pads), just as many, and more
    (picks), and with more than ``num_decoded`` (selects), and a trace holds one of these.
    """
    if 0 < num_decoded < num_classes:
        return num_decoded + 1, MAX_CLASSES
    low, high = 1, MAX_CLASSES
    if pad_len and num_classes == pad_len:
        low = high = pad_len
    elif pad_len:
        low, high = (1, pad_len - 1) if num_classes < pad_len else (pad_len + 1, MAX_CLASSES)
    return low, min(high, num_decoded or MAX_CLASSES)


def _limits(head: Any) -> tuple[int, int]:
    """``pad_len`` and ``num_decoded`` of a head, 0 where it has none."""
    selection = getattr(head, 'selection', None)
    return head.pad_len, 0 if selection is None else selection.num_decoded


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
        low, high = class_range(len(text), *_limits(model.decode_head))
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


def describe(model: Any, config: str, bake: bool) -> dict[str, Any]:
    """Metadata that goes into an exported file of a segmentor and the name of its config.

    With ``bake`` the file holds the text embeddings. The palette is RGB, 0..255; ``input_size``
    height and width in pixels; ``mean`` and ``std`` (of 0..255) are already applied inside;
    ``threshold`` is the probability above which a pixel is of a single class.
    """
    meta, preprocessor = model.dataset_meta, model.data_preprocessor
    num_classes = len(meta['classes'])
    low, high = class_range(num_classes, *_limits(model.decode_head))
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


def save_onnx(
    program: torch.export.ExportedProgram,
    path: Path,
    metadata: dict[str, Any],
    half: bool = False,
) -> None:
    """Write an ONNX file of opset ``OPSET``; each entry of the metadata is a JSON string in it.

    ``half``: weights and operations in float16 where onnxruntime's converter knows them to be
    safe, inputs and outputs in float32 as before; for GPUs.
    """
    result = torch.onnx.export(
        program, output_names=['logits'], opset_version=OPSET, dynamo=True, verbose=False
    )
    if result is None:
        raise RuntimeError('torch.onnx.export returned nothing')
    for key, value in metadata.items():
        result.model.metadata_props[key] = json.dumps(value, ensure_ascii=False)
    tensors = [*program.state_dict.values(), *program.constants.values()]
    size = sum(x.numel() * x.element_size() for x in tensors if isinstance(x, Tensor))
    if half:
        import onnx
        from onnxruntime.transformers.float16 import convert_float_to_float16

        proto = convert_float_to_float16(result.model_proto, keep_io_types=True)
        onnx.save(proto, str(path), save_as_external_data=size // 2 > _PROTOBUF_LIMIT)
        return
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

    def good(self, half: bool = False) -> bool:
        """Whether both are within the bounds of float32, or of float16."""
        if half:
            return self.difference <= MAX_DIFFERENCE_HALF and self.equal >= MIN_EQUAL_HALF
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
