"""Pipeline steps that stop bad input with one clear error."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
from mmcv.transforms import BaseTransform
from mmseg.registry import TRANSFORMS
from PIL import Image, UnidentifiedImageError

from infoclip_mmseg.utils.images import ImageError, check_tiff, is_ordinary, read_image

JPEG_START, JPEG_END = b'\xff\xd8', b'\xff\xd9'
PNG_START, PNG_END = b'\x89PNG\r\n\x1a\n', b'IEND\xaeB`\x82'
SUFFIXES = ('.jpg', '.jpeg', '.png')
EXIF_ORIENTATION = 0x0112
EXIF_TURNED_ASIDE = (5, 6, 7, 8)
"""EXIF orientations that exchange the width and the height."""


def has_end_marker(path: str | os.PathLike[str]) -> bool | None:
    """Whether a local JPEG or PNG file ends with its end marker; None for any other file.

    Reads the first 8 and the last 32 bytes. Zero bytes after the marker are allowed; other trailing
    bytes are not, although decoders accept them.
    """
    with open(path, 'rb') as file:
        head = file.read(len(PNG_START))
        size = file.seek(0, os.SEEK_END)
        file.seek(max(size - 32, 0))
        tail = file.read()
    if head.startswith(JPEG_START):
        return tail.rstrip(b'\0').endswith(JPEG_END)
    if head == PNG_START:
        return tail.rstrip(b'\0').endswith(PNG_END)
    return None


def check_image_file(path: str | os.PathLike[str], role: str = 'image') -> tuple[int, int] | None:
    """Check that a local image or label file is there in full, without decoding it.

    Only a JPEG or PNG whose end marker is missing is decoded, to tell a truncated file from one
    with harmless bytes at its end. OpenCV 4 fills the missing part of a truncated JPEG with grey
    and says nothing.

    Returns height and width in pixels as a loader would give them (an EXIF rotation is applied to
    files with the role 'image', not to label maps), or None where Pillow does not know the format
    or refuses to open so many pixels.

    Raises:
        ValueError: The file is empty, truncated, named as JPEG or PNG and unreadable, or a TIFF
            whose pixels would come out wrong.
    """
    num_bytes = os.path.getsize(path)
    mend = 'Download or copy it again, or take it out of the data set together with its pair.'
    if num_bytes == 0:
        raise ValueError(f'{role} {path} is empty (0 bytes). {mend}')
    try:
        with Image.open(path) as image:
            width, height = image.size
            has_exif = role == 'image' and 'exif' in image.info
            turned = has_exif and image.getexif().get(EXIF_ORIENTATION) in EXIF_TURNED_ASIDE
            if role == 'image':
                check_tiff(image, str(path))
            if has_end_marker(path) is False:
                image.load()
    except ImageError:
        raise
    except Image.DecompressionBombError:
        return None
    except UnidentifiedImageError as error:
        if Path(path).suffix.lower() not in SUFFIXES:
            return None
        text = f'{role} {path} ({num_bytes} bytes) is not readable as an image. {mend}'
        raise ValueError(text) from error
    except (OSError, SyntaxError) as error:
        raise ValueError(
            f'{role} {path} is truncated or damaged: {num_bytes} bytes, and decoding stops with '
            f'"{error}". {mend}'
        ) from error
    return (width, height) if turned else (height, width)


@TRANSFORMS.register_module()
class CheckInputs(BaseTransform):
    """Check an image and its label map before they are used, and see the image as inference does.

    Put it first in a pipeline: then an empty, truncated or unreadable file is named before a loader
    fails on it (or OpenCV 4 returns half an image), and the sizes are compared by the file headers.
    After `LoadAnnotations` it works as well, and compares the loaded label map with `ori_shape`; in
    a training pipeline it has to stand before the first geometric transform. Arrays and files
    that are not on a local disk are compared only once loaded.

    A loaded colour image of a local file that decoders see differently (transparent, of 16 bits,
    CMYK ...) is read again by :func:`~infoclip_mmseg.utils.images.read_image`, which inference asks
    too: OpenCV shows black where an image is transparent. Ordinary images stay as they are.

    Optional keys: img_path, seg_map_path, img, ori_shape, gt_seg_map. Changed: img at most.

    Raises:
        ValueError: A file is empty, truncated or unreadable, the label map has another size than
            its image, or has more than one channel.
    """

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        """Check one sample; see the class."""
        image_size, label_size = (
            check_image_file(results[key], role) if _is_local(results.get(key)) else None
            for key, role in (('img_path', 'image'), ('seg_map_path', 'label map'))
        )
        if image_size is not None:
            self._see(results)
        label = results.get('gt_seg_map')
        if label is not None:
            if label.ndim != 2:
                raise ValueError(
                    f'label map {results.get("seg_map_path")} has shape {label.shape}; expected '
                    'one channel (H, W) that holds class indices. Convert it to an indexed or '
                    '8-bit grey PNG.'
                )
            label_size, image_size = label.shape, results.get('ori_shape', image_size)
        if image_size is None or label_size is None:
            return results
        if tuple(image_size[:2]) != tuple(label_size[:2]):
            raise ValueError(
                f'label map {results.get("seg_map_path")} is {label_size[0]} x {label_size[1]} '
                f'pixels (height x width), its image {results.get("img_path")} is '
                f'{image_size[0]} x {image_size[1]}; they must be equal. Check that the two belong '
                'together (img_suffix, seg_map_suffix, data_prefix) and resize the label map with '
                'nearest neighbour where they do.'
            )
        return results

    @staticmethod
    def _see(results: dict[str, Any]) -> None:
        """Replace a loaded image that OpenCV sees in another way."""
        loaded = results.get('img')
        transformed = 'scale_factor' in results or 'flip' in results
        if transformed or loaded is None or loaded.ndim != 3 or loaded.shape[2] != 3:
            return
        with Image.open(results['img_path']) as image:
            if is_ordinary(image):
                return
        seen = read_image(results['img_path'])[..., ::-1]
        results['img'] = np.ascontiguousarray(seen).astype(loaded.dtype)
        results['img_shape'] = results['ori_shape'] = seen.shape[:2]

    def __repr__(self) -> str:
        return f'{type(self).__name__}()'


def _is_local(path: Any) -> bool:
    return isinstance(path, (str, os.PathLike)) and os.path.isfile(path)
