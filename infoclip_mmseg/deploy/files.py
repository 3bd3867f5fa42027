"""Exported programs, and text embeddings, to files that say what they are."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from infoclip_mmseg.deploy.view import class_range
from infoclip_mmseg.version import __version__

OPSET = 18
METADATA_FILE = 'metadata.json'
# A protobuf file holds at most 2 GiB; what does not fit goes beside it.
_PROTOBUF_LIMIT = 2_000_000_000


def describe(model: Any, config: str, bake: bool) -> dict[str, Any]:
    """Metadata that goes into an exported file.

    Args:
        model: The segmentor, with its vocabulary.
        config: Name of its config.
        bake: Whether the text embeddings are held in the file.

    Returns:
        ``config``, ``classes``, ``palette`` (RGB, 0..255), ``input_size`` (height and width in
        pixels), ``mean``, ``std`` (of 0..255; already applied inside), ``threshold`` (probability
        above which a pixel is of a single class), ``text`` ('baked' or 'input'), ``min_classes``,
        ``max_classes``, ``infoclip_mmseg`` (version).
    """
    meta = model.dataset_meta
    num_classes = len(meta['classes'])
    low, high = class_range(num_classes, model.decode_head.pad_len)
    preprocessor = model.data_preprocessor
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
    """Write an ONNX file of opset ``OPSET``; each entry of the metadata is a JSON string in it.

    Raises:
        ImportError: onnx or onnxscript is missing.
    """
    result = torch.onnx.export(
        program,
        output_names=['logits'],
        opset_version=OPSET,
        dynamo=True,
        verbose=False,
    )
    if result is None:
        raise RuntimeError('torch.onnx.export returned nothing')
    for key, value in metadata.items():
        result.model.metadata_props[key] = json.dumps(value, ensure_ascii=False)
    tensors = [*program.state_dict.values(), *program.constants.values()]
    size = sum(x.numel() * x.element_size() for x in tensors if isinstance(x, Tensor))
    result.save(str(path), external_data=size > _PROTOBUF_LIMIT)


def save_text(path: Path, text: Tensor, metadata: dict[str, Any]) -> None:
    """Write text embeddings for a program that takes them as an input.

    Args:
        path: .npz file; it gets ``text`` (T, P, C) float32, ``classes`` (T,) and ``palette``
            (T, 3), and can be read without pickle.
        text: Text embeddings.
        metadata: See :func:`describe`.
    """
    palette = np.asarray(metadata['palette'], dtype=np.uint8)
    classes = np.asarray(metadata['classes'], dtype=np.str_)
    np.savez(path, text=text.numpy().astype(np.float32), classes=classes, palette=palette)
