"""An image under the colours of its labels, with a legend.

Legend: h w pixels, N names.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from infoclip_mmseg.utils.palette import colour_labels
from infoclip_mmseg.visualization.fonts import font_and_text

RGB = NDArray[np.uint8]
SIDES = (640, 4096)
"""Longer side of an overlay in pixels: smaller images are enlarged, larger ones reduced."""
MAX_ROWS = 8
PAPER, INK, FAINT = (255, 255, 255), (25, 25, 25), (110, 110, 110)


class Entry(NamedTuple):
    """A line of a legend: name, colour [r, g, b], share of the image 0..1."""

    name: str
    colour: Sequence[int]
    share: float


def blend(
    image: RGB, labels: NDArray, palette: Sequence[Sequence[int]], opacity: float = 0.5
) -> RGB:
    """Colours of the labels over an image, without a legend.

    Args:
        image: RGB (h, w, 3), 0..255.
        labels: (h, w), indices into the palette.
        palette: N colours [r, g, b], 0..255.
        opacity: 0 shows the image, 1 the colours only.
    """
    colours = colour_labels(labels, palette)
    return np.asarray(cv2.addWeighted(image, 1 - opacity, colours, opacity, 0), np.uint8)


def draw_overlay(
    image: RGB,
    labels: NDArray,
    names: Sequence[str],
    palette: Sequence[Sequence[int]],
    opacity: float = 0.5,
) -> RGB:
    """An image with its labels in colour and, below it, a legend of the names that it has.

    Args:
        image: RGB (h, w, 3), 0..255.
        labels: (h, w), 0..N-1.
        names: N names.
        palette: N colours [r, g, b], 0..255.
        opacity: See :func:`blend`.

    Returns:
        RGB (h', w', 3), 0..255, its longer side within ``SIDES`` before the legend is added.
    """
    image, labels = _fit(image, labels)
    picture = _outline(blend(image, labels, palette, opacity), labels, palette)
    area = np.bincount(labels.ravel(), minlength=len(names))
    order = [i for i in np.argsort(-area, kind='stable') if area[i]]
    entries = [Entry(names[i], palette[i], float(area[i] / labels.size)) for i in order]
    legend = draw_legend(entries, picture.shape[1])
    return np.concatenate([picture, legend])


def draw_legend(entries: Sequence[Entry], width: int) -> RGB:
    """Colours, names and shares in columns, (h', width, 3); what does not fit is counted."""
    size = max(13, min(40, width // 48))
    line, pad = round(size * 1.55), round(size * 0.6)
    columns = max(1, min(len(entries), (width - pad) // (13 * size)))
    shown = list(entries)
    if len(shown) > columns * MAX_ROWS:
        shown = shown[: columns * MAX_ROWS - 1]
    rest = entries[len(shown) :]
    rows = -(-(len(shown) + bool(rest)) // columns)
    canvas = Image.new('RGB', (width, rows * line + 2 * pad), PAPER)
    draw = ImageDraw.Draw(canvas)
    cell = (width - pad) // columns
    for index, entry in enumerate(shown):
        x, y = pad + index // rows * cell, pad + index % rows * line
        _draw_entry(draw, entry, (x, y), cell - pad, size)
    if rest:
        x, y = pad + len(shown) // rows * cell, pad + len(shown) % rows * line
        text = f'and {len(rest)} more, {100 * sum(e.share for e in rest):.1f} %'
        draw.text((x, y), text, FAINT, font_and_text(text, size)[0])
    return np.array(canvas)


def _draw_entry(draw: Any, entry: Entry, corner: tuple[int, int], width: int, size: int) -> None:
    x, y = corner
    side = round(size * 1.1)
    box = (x, y, x + side, y + side)
    draw.rectangle(box, fill=tuple(entry.colour), outline=FAINT)
    share = f'{100 * entry.share:.1f} %' if entry.share >= 0.0005 else '< 0.1 %'
    share_font, _ = font_and_text(share, size)
    share_width = draw.textlength(share, share_font)
    left = x + side + size // 2
    font, name = font_and_text(entry.name, size)
    name = _shorten(draw, name, font, width - (left - x) - share_width - size // 2)
    draw.text((left, y), name, INK, font)
    after = left + draw.textlength(name, font) + size // 2
    draw.text((after, y), share, FAINT, share_font)


def _shorten(draw: Any, text: str, font: Any, width: float) -> str:
    """The text, cut and with an ellipsis where it is wider than ``width`` pixels."""
    if draw.textlength(text[:400], font) <= width and len(text) <= 400:
        return text
    low, high = 0, min(len(text), 400)
    while low < high:
        middle = (low + high + 1) // 2
        if draw.textlength(text[:middle] + '...', font) <= width:
            low = middle
        else:
            high = middle - 1
    return text[:low].rstrip() + '...'


def _fit(image: RGB, labels: NDArray) -> tuple[RGB, NDArray]:
    """Bring the longer side into ``SIDES``."""
    height, width = labels.shape
    side = max(height, width)
    scale = max(SIDES[0], min(side, SIDES[1])) / side
    if scale == 1:
        return image, labels
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    how = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    labels = cv2.resize(labels.astype(np.uint16), size, interpolation=cv2.INTER_NEAREST)
    return np.asarray(cv2.resize(image, size, interpolation=how), np.uint8), labels


def _outline(picture: RGB, labels: NDArray, palette: Sequence[Sequence[int]]) -> RGB:
    """Darker lines where labels change."""
    edge = np.zeros(labels.shape, bool)
    edge[1:] |= labels[1:] != labels[:-1]
    edge[:, 1:] |= labels[:, 1:] != labels[:, :-1]
    out = picture.copy()
    out[edge] = (colour_labels(labels[edge][None], palette)[0] * 0.6).astype(np.uint8)
    return out
