"""Pictures of any kind to RGB arrays of 8 bits, with one clear error for what is none.

The one place that decides what a picture looks like: training, tests, inference, the web page and
tools/onnx_example.py all ask :func:`read_image`. It needs NumPy and Pillow, nothing else, so that
the example can load this file alone. Legend: h w pixels.
"""

from __future__ import annotations

import io
import os
import warnings
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

RGB = NDArray[np.uint8]
MAX_PIXELS = 80_000_000
# What is opened. Not EPS, which Pillow hands to Ghostscript, nor other formats for programs.
FORMATS = ('JPEG', 'MPO', 'PNG', 'WEBP', 'BMP', 'GIF', 'TIFF', 'PPM', 'JPEG2000', 'AVIF')
SUFFIXES = (
    *('.jpg', '.jpeg', '.png', '.webp', '.bmp', '.gif', '.tif', '.tiff', '.ppm', '.pgm', '.pbm'),
    *('.jp2', '.avif', '.mpo'),
)
# Tags of TIFF files.
_BITS, _COMPRESSION, _PHOTOMETRIC, _PLANES = 258, 259, 262, 284
PAPER = (255, 255, 255)
"""What shows through transparent pixels, RGB 0..255."""


class ImageError(ValueError):
    """An image that can't be read or segmented; the message names it."""


def read_image(
    source: str | os.PathLike[str] | bytes, max_pixels: int = MAX_PIXELS, name: str | None = None
) -> RGB:
    """Read a picture as people see it: turned as its EXIF entry says, in 8 bits, RGB.

    Size and format are read from the header before anything is decoded. Of a file with several
    pictures the first is read. The result is (h, w, 3), 0..255.

    Args:
        source: Path of a local file, or the file's bytes.
        max_pixels: Largest height times width that is decoded.
        name: What errors call it; None takes the path.

    Raises:
        FileNotFoundError: There is no such file.
        ImageError: The file is empty, truncated, no image, larger than the limit, or a TIFF that
            Pillow reads wrongly.
    """
    name = name or (str(source) if not isinstance(source, bytes) else 'bytes')
    content = source if isinstance(source, bytes) else _read_bytes(Path(source), name)
    if not content:
        raise ImageError(f'{name}: the file is empty (0 bytes); copy or download it again')
    Image.init()
    formats = [kind for kind in FORMATS if kind in Image.OPEN]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter('ignore', Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(content), formats=formats) as image:
                check_pixels(image.height, image.width, max_pixels, name)
                check_tiff(image, name)
                return to_rgb(image, name)
    except ImageError:
        raise
    except Image.DecompressionBombError as error:
        raise ImageError(
            f'{name}: {error}. Make it smaller, or, if you trust the file, raise '
            'PIL.Image.MAX_IMAGE_PIXELS and max_pixels'
        ) from error
    except UnidentifiedImageError as error:
        raise ImageError(
            f'{name}: no image of a known format ({len(content)} bytes that begin with '
            f'{content[:12]!r}); known are {", ".join(formats)}'
        ) from error
    except Exception as error:  # decoders raise almost anything on damaged bytes
        raise ImageError(
            f'{name}: the image cannot be decoded, it is damaged or truncated '
            f'({type(error).__name__}: {error})'
        ) from error


def to_rgb(image: Image.Image, name: str = 'image') -> RGB:
    """A Pillow image as RGB (h, w, 3), 0..255, turned as its EXIF entry says.

    16 bits are scaled to 8 over their full range; transparent pixels show white.
    """
    image = ImageOps.exif_transpose(image)
    if image.mode in ('I', 'F') or image.mode.startswith('I;'):
        return array_to_rgb(np.asarray(image), name)
    if image.mode in ('RGBA', 'LA', 'PA', 'RGBa', 'La') or 'transparency' in image.info:
        layer = image.convert('RGBA')
        paper = Image.new('RGBA', layer.size, (*PAPER, 255))
        image = Image.alpha_composite(paper, layer)
    return np.array(image.convert('RGB'))


def array_to_rgb(array: NDArray, name: str = 'array') -> RGB:
    """An array in OpenCV's form to RGB (h, w, 3), 0..255; ``name`` is what errors call it.

    It is (h, w), (h, w, 1), (h, w, 3) BGR or (h, w, 4) BGRA, of unsigned integers of 8 or 16 bits
    (or wider ones that stay within 16). Others are an ImageError.
    """
    shape = array.shape
    if array.ndim == 2:
        array = array[..., None]
    if array.ndim != 3 or array.shape[2] not in (1, 3, 4) or array.size == 0:
        raise ImageError(
            f'{name}: an array must be (h, w), (h, w, 1), (h, w, 3) BGR or (h, w, 4) BGRA, '
            f'got {shape}'
        )
    if array.dtype != np.uint8:
        array = _to_8_bits(array, name)
    if array.shape[2] == 4:
        alpha = array[..., 3:].astype(np.float32) / 255
        array = np.round(array[..., :3] * alpha + np.array(PAPER) * (1 - alpha)).astype(np.uint8)
    if array.shape[2] == 1:
        array = array.repeat(3, axis=2)
    return np.ascontiguousarray(array[..., ::-1])


def check_pixels(height: int, width: int, max_pixels: int, name: str) -> None:
    """Raise an ImageError for an image with more pixels than the limit."""
    if height * width > max_pixels:
        raise ImageError(
            f'{name}: {width} x {height} pixels are more than the limit of {max_pixels}; make the '
            'image smaller or raise max_pixels'
        )


def check_tiff(image: Image.Image, name: str) -> None:
    """Refuse TIFF files whose pixels Pillow gets wrong without saying so by an ImageError.

    These are those of more than 8 bits that count down from white (Pillow leaves them inverted), or
    that hold one plane after the other without compression (it takes them for pixels in turn).
    """
    tags = getattr(image, 'tag_v2', None)
    if tags is None or max(tags.get(_BITS, (1,))) <= 8:
        return
    planes = tags.get(_PLANES, 1) == 2 and tags.get(_COMPRESSION, 1) == 1
    if tags.get(_PHOTOMETRIC) == 0 or planes:
        kind = 'holds its planes one after the other' if planes else 'counts down from white'
        raise ImageError(
            f'{name}: a TIFF of {max(tags[_BITS])} bits that {kind} ('
            f'{"PlanarConfiguration 2" if planes else "PhotometricInterpretation 0"}) cannot be '
            'read rightly; convert it to PNG, or to a TIFF with pixels in turn that counts up from '
            'black, for example: gdal_translate -co INTERLEAVE=PIXEL, or ImageMagick'
        )


def is_ordinary(image: Image.Image) -> bool:
    """Whether any decoder gives what :func:`read_image` does: 8 bits, grey or RGB, all opaque."""
    return (
        image.format in ('JPEG', 'PNG', 'BMP', 'PPM')
        and image.mode in ('L', 'RGB')
        and 'transparency' not in image.info
        and (image.format == 'JPEG' or 'exif' not in image.info)
    )


def _to_8_bits(array: NDArray, name: str) -> RGB:
    low, high = array.min(), array.max()
    if array.dtype.kind not in 'iu' or low < 0 or high > 65535:
        raise ImageError(
            f'{name}: values of dtype {array.dtype} from {low} to {high} have no agreed '
            'brightness; convert them to unsigned integers of 8 bits (0..255) or 16 bits (0..65535)'
        )
    if array.dtype.itemsize == 1:
        return array.astype(np.uint8)
    return ((array.astype(np.uint32) + 128) // 257).astype(np.uint8)


def _read_bytes(path: Path, name: str) -> bytes:
    if not path.exists():
        raise FileNotFoundError(f'{name}: no such file (working directory {Path.cwd()})')
    try:
        return path.read_bytes()
    except OSError as error:
        raise ImageError(f'{name}: cannot be read ({error.strerror or error})') from error
