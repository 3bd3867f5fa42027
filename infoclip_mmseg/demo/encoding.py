"""Text and pictures as parts of a page (pure functions).

Legend: h w pixels.
"""

from __future__ import annotations

import base64
import functools
import html
import io
from typing import NamedTuple

import cv2
import numpy as np
from matplotlib import colormaps
from numpy.typing import NDArray
from PIL import Image

COLOUR_MAP = 'magma'
_TEMPLATE_SIGNS = str.maketrans({sign: f'&#{ord(sign)};' for sign in '{}$`\\'})


class Heat(NamedTuple):
    """A heat map: its picture as a data URI, and the values of its darkest and brightest colour."""

    uri: str
    low: float
    high: float


def escape(text: str) -> str:
    """A user's text for HTML, between tags and in attributes.

    The signs of Gradio's templates are escaped too, so that no text is read as one.
    """
    text = ''.join(c if c.isprintable() else ' ' for c in text)
    return html.escape(text, quote=True).translate(_TEMPLATE_SIGNS)


def data_uri(image: Image.Image, form: str = 'PNG', **options: int) -> str:
    """A picture as 'data:image/...;base64,...'."""
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return f'data:image/{form.lower()};base64,{base64.b64encode(buffer.getvalue()).decode()}'


def heat_map(values: NDArray[np.floating], longest: int = 160) -> Heat:
    """Values (h, w) in colours from their least to their largest one.

    Args:
        values: Finite numbers.
        longest: Longer side of the picture at most; larger maps are averaged down.
    """
    scale = longest / max(values.shape)
    if scale < 1:
        size = (max(1, round(values.shape[1] * scale)), max(1, round(values.shape[0] * scale)))
        values = np.asarray(cv2.resize(values, size, interpolation=cv2.INTER_AREA))
    low, high = float(values.min()), float(values.max())
    levels = np.round((values - low) / max(high - low, 1e-12) * 255).astype(np.uint8)
    image = Image.fromarray(levels)
    image.putpalette(_palette())
    return Heat(data_uri(image), low, high)


def base64_bytes(array: NDArray[np.uint8]) -> str:
    """The bytes of an array, row by row."""
    return base64.b64encode(np.ascontiguousarray(array).tobytes()).decode()


def colour_bar() -> str:
    """The colours of :func:`heat_map` as a CSS gradient from left to right."""
    stops = np.array(_palette()).reshape(-1, 3)[::17].tolist()
    return f'linear-gradient(90deg, {", ".join("#" + bytes(c).hex() for c in stops)})'


@functools.cache
def _palette() -> tuple[int, ...]:
    colours = colormaps[COLOUR_MAP](np.arange(256), bytes=True)[:, :3]
    return tuple(int(value) for value in colours.ravel())
