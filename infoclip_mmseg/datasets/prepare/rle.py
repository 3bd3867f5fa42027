"""COCO's run-length encoding of masks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np


def decode_counts(text: str) -> list[int]:
    """Run lengths from COCO's compressed string.

    A number is a sequence of characters of six bits (code minus 48): five bits of value, lowest
    first, and 32 for 'one more follows'. Bit 16 of the last one is the sign. From the fourth
    run on, differences to the run before the previous one are stored.

    Raises:
        ValueError: The string ends within a number or holds other characters.
    """
    counts: list[int] = []
    value = shift = 0
    for character in text:
        bits = ord(character) - 48
        if not 0 <= bits < 64:
            raise ValueError(f'run-length string holds the character {character!r}')
        value |= (bits & 31) << shift
        shift += 5
        if bits & 32:
            continue
        if bits & 16:
            value -= 1 << shift
        counts.append(value + counts[-2] if len(counts) > 2 else value)
        value = shift = 0
    if shift:
        raise ValueError('run-length string ends within a number')
    return counts


def decode_mask(segmentation: Any) -> np.ndarray:
    """A mask from COCO's `{'size': [H, W], 'counts': ...}`.

    Args:
        segmentation: Compressed (string) or uncompressed (list) counts, column by column, the first
            run is background.

    Returns:
        (H, W), bool.

    Raises:
        ValueError: The runs do not fill the mask, or it is something else (a polygon).
    """
    if not isinstance(segmentation, Mapping) or not {'size', 'counts'} <= segmentation.keys():
        raise ValueError(f'a mask is {str(segmentation)[:60]}; expected a run-length encoded one')
    height, width = segmentation['size']
    counts: str | bytes | Sequence[int] = segmentation['counts']
    if isinstance(counts, bytes):
        counts = counts.decode('ascii')
    runs = decode_counts(counts) if isinstance(counts, str) else list(counts)
    if min(runs, default=0) < 0 or sum(runs) != height * width:
        raise ValueError(f'runs of a mask fill {sum(runs)} pixels; its size is {height} x {width}')
    values = np.arange(len(runs)) % 2 == 1
    return np.repeat(values, runs).reshape(width, height).T
