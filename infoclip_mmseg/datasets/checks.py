"""Checks that stop bad input with one clear error: of a config's folders, files in a pipeline."""

from __future__ import annotations

import codecs
import inspect
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from mmcv.transforms import BaseTransform
from mmengine.config import Config
from mmseg.registry import DATASETS, TRANSFORMS
from PIL import Image, UnidentifiedImageError

from infoclip_mmseg.datasets.vocabularies import shipped_vocabularies
from infoclip_mmseg.datasets.vocabulary_dataset import VocabularyDataset
from infoclip_mmseg.utils.images import ImageError, check_tiff, is_ordinary, read_image

DATALOADERS = ('train_dataloader', 'val_dataloader', 'test_dataloader')
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


def check_dataloader_cfg(cfg: Config, keys: Sequence[str] = DATALOADERS) -> None:
    """Check that the files and folders which a config's datasets name are there.

    MMSegmentation tells of some missing folders late and of an empty one as 'need at least one
    array to concatenate'. This looks at `data_root`, every entry of `data_prefix` and `ann_file`
    of each dataset, nested ones (`dataset`, `datasets`) too. Paths on a remote backend are skipped.

    Raises:
        FileNotFoundError: One message with everything missing, its config keys and how to mend it.
    """
    problems: list[str] = []
    for key in keys:
        loader = cfg.get(key)
        if isinstance(loader, Mapping) and 'dataset' in loader:
            for name, dataset in _leaf_datasets(loader['dataset'], f'{key}.dataset'):
                problems.extend(_find_problems(name, dataset))
    if problems:
        lines = '\n'.join(f'  {line}' for line in dict.fromkeys(problems))
        raise FileNotFoundError(
            f'data set not found (relative paths start at {os.getcwd()}):\n{lines}\n'
            'Put the data there, in the layout that data/README.md shows, or point the key named '
            'above to it, in the config or with --cfg-options KEY=PATH.'
        )


def _leaf_datasets(dataset: Any, name: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield (config key, config) of the datasets inside Repeat-, Concat- and other wrappers."""
    if not isinstance(dataset, Mapping):
        return
    if 'datasets' in dataset:
        for index, inner in enumerate(dataset['datasets']):
            yield from _leaf_datasets(inner, f'{name}.datasets.{index}')
    elif 'dataset' in dataset:
        yield from _leaf_datasets(dataset['dataset'], f'{name}.dataset')
    else:
        yield name, dataset


def _find_problems(name: str, dataset: Mapping[str, Any]) -> Iterator[str]:
    """Yield one line for every missing path of one dataset config."""
    backend = dataset.get('backend_args') or {}
    if backend.get('backend', 'local') != 'local':
        return
    root = dataset.get('data_root') or ''
    if _is_remote(root):
        return
    ann_file = dataset.get('ann_file') or ''
    prefixes = dataset.get('data_prefix') or {}
    uses_root = any(
        path and not (os.path.isabs(path) or _is_remote(path))
        for path in (ann_file, *prefixes.values())
    )
    if root and not os.path.isdir(root) and (uses_root or not any(prefixes.values())):
        yield f'{name}.data_root={root!r}: no such folder'
        return
    own = issubclass(_class_of(dataset), VocabularyDataset)
    if ann_file and not _is_remote(ann_file):
        path = os.path.join(root, ann_file)
        if not os.path.exists(path):
            yield f'{name}.ann_file={ann_file!r}: no file {path}'
        elif not own and os.path.isfile(path) and _begins_with_mark(path):
            yield (
                f'{name}.ann_file={ann_file!r}: {path} begins with a byte order mark, which would '
                'become part of the first name; save it as UTF-8 without one'
            )
    names = dataset.get('vocabulary')
    if prefixes and isinstance(names, str) and names not in shipped_vocabularies():
        path = os.path.join(root, names)
        if not os.path.isfile(path):
            shipped = ', '.join(shipped_vocabularies())
            yield f'{name}.vocabulary={names!r}: no file {path}, and none of the lists {shipped}'
    for key, prefix in prefixes.items():
        folder = os.path.join(root, prefix)
        if not prefix or _is_remote(prefix):
            continue
        if not os.path.isdir(folder):
            yield f'{name}.data_prefix.{key}={prefix!r}: no folder {folder}'
        elif key == 'img_path':
            suffix = dataset.get('img_suffix') or _usual_suffix(dataset)
            exact, other_case = _count_files(folder, suffix)
            if not exact + other_case * own:
                yield f'{name}.data_prefix.{key}={prefix!r}: no image in {folder}'
            if other_case and not own:
                yield (
                    f'{name}.img_suffix={suffix!r}: {other_case} files in {folder} have it in '
                    'another case and would be left out; rename them, or use a VocabularyDataset, '
                    'which takes either'
                )


def _is_remote(path: str) -> bool:
    return '://' in path or path.startswith('s3:')


def _begins_with_mark(path: str) -> bool:
    with open(path, 'rb') as file:
        return file.read(len(codecs.BOM_UTF8)) == codecs.BOM_UTF8


def _class_of(dataset: Mapping[str, Any]) -> type:
    kind = DATASETS.get(dataset['type']) if isinstance(dataset.get('type'), str) else None
    return kind if isinstance(kind, type) else object


def _usual_suffix(dataset: Mapping[str, Any]) -> str | Sequence[str]:
    """Default of a data set's argument img_suffix; '' where it is passed on to a base class."""
    usual = inspect.signature(_class_of(dataset)).parameters.get('img_suffix')
    return getattr(usual, 'default', '')


def _count_files(folder: str, suffix: str | Sequence[str]) -> tuple[int, int]:
    """Files below a folder that end so, and that do in another case; hidden ones do not count."""
    suffixes = (suffix,) if isinstance(suffix, str) else tuple(suffix)
    lower = tuple(s.lower() for s in suffixes)
    walk = os.walk(folder, followlinks=True)
    names = [name for _, _, names in walk for name in names if not name.startswith('.')]
    exact = sum(name.endswith(suffixes) for name in names)
    return exact, sum(name.lower().endswith(lower) for name in names) - exact
