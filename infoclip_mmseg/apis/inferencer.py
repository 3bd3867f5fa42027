"""OpenVocabInferencer: own images, own words."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from mmengine.config import Config
from numpy.typing import NDArray

from infoclip_mmseg.apis.image_sources import Source, list_sources
from infoclip_mmseg.apis.loading import build_pipeline, find_config, load_segmentor, pick_device
from infoclip_mmseg.apis.prediction import (
    Maps,
    Prediction,
    join_maps,
    name_labels,
    read_maps,
    save_prediction,
)
from infoclip_mmseg.apis.reading import (
    UNREADABLE,
    Limits,
    OnError,
    Picture,
    check_on_error,
    read_pictures,
)
from infoclip_mmseg.apis.tiles import MAX_ASPECT, Tile, make_tiles
from infoclip_mmseg.apis.words import Background, Words, plan_words, words_key
from infoclip_mmseg.utils.images import ImageError
from infoclip_mmseg.visualization.overlay import draw_overlay

DEFAULT_CONFIG = 'world/zero_shot'
MAX_SCORE_BYTES = 2 << 30
# Larger images are reduced to so many pixels and their label maps enlarged. What the model itself
# looks at is far smaller (640 x 640 as published).
MAX_LABEL_PIXELS = 16_000_000


@dataclass(frozen=True)
class _Options:
    batch_size: int
    return_scores: bool
    return_vis: bool
    opacity: float
    out_dir: Path | None


class OpenVocabInferencer:
    """Segments images with any words, in the manner of mmseg's ``MMSegInferencer``.

    The words may change from call to call; nothing is loaded again. Calls from several threads are
    run one after the other.

    Args:
        model: Name of a config of this repository ('infoclip_vitb16_coco-stuff'), path of a config
            file, or a Config. The default, the small CLIP of the composed world, works with
            nothing downloaded, and knows nothing but drawn scenes.
        weights: Checkpoint, read as data. May be None where the decode head has no weights.
        device: Such as 'cpu' or 'cuda:1'; None takes CUDA where there is one.
        amp: Mixed precision: float16 on CUDA, bfloat16 elsewhere.
        text_cache_dir: Folder in which text embeddings are kept between runs; None keeps those of
            the latest words in memory.
        max_pixels: Largest height times width of an image that is read.
        max_bytes: Largest file that is fetched from the web.
        max_aspect: Long side over short side above which an image is cut into tiles.

    Raises:
        FileNotFoundError, ValueError, CheckpointError: Config, weights or device are not there or
            do not fit together.
    """

    def __init__(
        self,
        model: str | os.PathLike[str] | Config = DEFAULT_CONFIG,
        weights: str | os.PathLike[str] | None = None,
        device: str | torch.device | None = None,
        amp: bool = False,
        text_cache_dir: str | None = None,
        max_pixels: int = Limits.max_pixels,
        max_bytes: int = Limits.max_bytes,
        max_aspect: float = MAX_ASPECT,
    ) -> None:
        self.limits = Limits(max_pixels, max_bytes)
        if max_aspect < 1:
            raise ValueError(f'max_aspect must be 1 or more, got {max_aspect}')
        self.max_aspect = max_aspect
        self.device = pick_device(device)
        self.amp = amp
        self.cfg = model if isinstance(model, Config) else Config.fromfile(find_config(model))
        self.model = load_segmentor(self.cfg, weights, self.device)
        if text_cache_dir is not None:
            self.model.backbone.text_encoder.cache_dir = text_cache_dir
        self.pipeline = build_pipeline(self.cfg)
        self._lock = threading.Lock()
        self._planned: tuple[Any, Words] | None = None

    def __call__(
        self,
        inputs: Any,
        classes: str | Sequence[str],
        background: Background = None,
        **options: Any,
    ) -> list[Prediction]:
        """Segment images; arguments as for :meth:`stream`.

        Returns:
            A prediction for each image, also where there is only one. Where an image cannot be
            read the error that is raised has those before it as ``error.results``; for many or
            large images :meth:`stream` needs less memory.
        """
        results: list[Prediction] = []
        try:
            results.extend(self.stream(inputs, classes, background, **options))
        except Exception as error:
            error.results = results  # type: ignore[attr-defined]
            raise
        return results

    def stream(
        self,
        inputs: Any,
        classes: str | Sequence[str],
        background: Background = None,
        batch_size: int = 1,
        return_scores: bool = False,
        return_vis: bool = False,
        opacity: float = 0.5,
        out_dir: str | os.PathLike[str] | None = None,
        frame_step: int = 1,
        on_error: OnError = 'raise',
    ) -> Iterator[Prediction]:
        """Segment images one after the other, each result as soon as it is there.

        Words, options and the existence of all files are checked before this returns.

        Args:
            inputs: A path, folder, glob pattern, http(s) address, array (BGR, as OpenCV reads and
                as MMSegInferencer takes them; grey and BGRA too), Pillow image (RGB), video file,
                or a list of these. EXIF orientation is applied.
            classes: Names, each perhaps with comma-separated synonyms: a list, a string
                'cat; dog', the name of a vocabulary of the package ('ade847'), or a text file.
            background: What gets no class. None: every pixel gets the best class (a single class:
                where its probability is above the head's threshold). A list of words: they compete
                with the classes, and what they win is background. A number: pixels whose best
                class has a lower probability are background.
            batch_size: Images, or tiles of long ones, that go through the model together.
            return_scores: Keep the probabilities of all classes, (T, h, w).
            return_vis: Keep the overlay.
            opacity: Of the colours over the image, 0..1.
            out_dir: Folder that gets ``vis/*.jpg``, ``pred/*.png`` and ``pred/*.json``, each as
                soon as its image is finished.
            frame_step: Every so-manieth frame of videos is segmented.
            on_error: What happens when an image turns out to be unreadable: 'raise' stops, 'skip'
                warns and goes on, a function is called with the image's name and the error.

        Raises:
            FileNotFoundError, ImageError, TypeError, ValueError: Bad input, named; the iterator
                raises ImageError for what shows only when an image is read.
        """
        if batch_size < 1:
            raise ValueError(f'batch_size must be 1 or more, got {batch_size}')
        if not 0 <= opacity <= 1:
            raise ValueError(f'opacity must be 0..1, got {opacity}')
        check_on_error(on_error)
        limits = replace(self.limits, frame_step=frame_step)
        words = self.plan(classes, background)
        sources = inputs if _are_sources(inputs) else list_sources(inputs)
        folder = None if out_dir is None else Path(out_dir)
        options = _Options(batch_size, return_scores, return_vis, opacity, folder)
        return self._stream(sources, limits, words, options, on_error)

    def plan(self, classes: str | Sequence[str], background: Background = None) -> Words:
        """The words of a call, checked; see :func:`~infoclip_mmseg.apis.words.plan_words`."""
        key = words_key(classes, background, self.model)
        planned = self._planned
        if planned is not None and planned[0] == key:
            return planned[1]
        result = plan_words(classes, background, self.model)
        self._planned = (key, result) if key is not None else None
        return result

    def _stream(
        self,
        sources: Sequence[Source],
        limits: Limits,
        words: Words,
        options: _Options,
        on_error: OnError,
    ) -> Iterator[Prediction]:
        check = partial(self._check, words=words, options=options)
        pictures = read_pictures(sources, limits, check, on_error)
        waiting: list[tuple[Picture, list[Tile]]] = []
        failure: Exception | None = None
        while True:
            try:
                picture = next(pictures, None)
            except UNREADABLE as error:  # raised when what was read before is finished
                picture, failure = None, error
            if picture is not None:
                size = picture.image.shape
                waiting.append((picture, make_tiles(size[0], size[1], self.max_aspect)))
            if picture is None or sum(len(t) for _, t in waiting) >= options.batch_size:
                yield from self._finish(waiting, words, options)
                waiting = []
            if picture is None:
                break
        if failure is not None:
            raise failure

    def _check(self, picture: Picture, words: Words, options: _Options) -> None:
        height, width = picture.image.shape[:2]
        patch = self.model.backbone.patch_size
        if height < patch[0] or width < patch[1]:
            raise ImageError(
                f'{picture.name}: {width} x {height} pixels are less than one patch of {patch[1]} '
                f'x {patch[0]}; enlarge the image'
            )
        size = 4 * height * width * len(words.model_names)
        if options.return_scores and size > MAX_SCORE_BYTES:
            raise ImageError(
                f'{picture.name}: scores of {len(words.model_names)} words at {width} x {height} '
                f'pixels need {size >> 20} MiB, the limit is {MAX_SCORE_BYTES >> 20}; use fewer '
                'words, a smaller image, or return_scores=False'
            )

    def _finish(
        self,
        waiting: Sequence[tuple[Picture, list[Tile]]],
        words: Words,
        options: _Options,
    ) -> Iterator[Prediction]:
        """Predict the pictures that wait, draw and write."""
        parts = [(picture, tile) for picture, tiles in waiting for tile in tiles]
        maps: list[Maps] = []
        for start in range(0, len(parts), options.batch_size):
            batch = parts[start : start + options.batch_size]
            maps += self._predict(batch, words, options.return_scores)
        for picture, tiles in waiting:
            first, maps = maps[: len(tiles)], maps[len(tiles) :]
            joined = join_maps(picture.image.shape[:2], tiles, first)
            prediction = name_labels(picture, joined, words, options.return_scores)
            if options.return_vis or options.out_dir is not None:
                shown = (prediction.labels, prediction.names, prediction.palette)
                drawn = draw_overlay(picture.image, *shown, options.opacity)
                prediction = replace(prediction, visualization=drawn)
            if options.out_dir is not None:
                save_prediction(prediction, options.out_dir)
            if not options.return_vis:
                prediction = replace(prediction, visualization=None)
            yield prediction

    def _predict(
        self, parts: Sequence[tuple[Picture, Tile]], words: Words, return_scores: bool
    ) -> list[Maps]:
        """Maps of tiles at their own size."""
        data: dict[str, list[Any]] = dict(inputs=[], data_samples=[])
        sizes = []
        for picture, tile in parts:
            top, bottom, left, right = tile.seen
            crop = np.ascontiguousarray(picture.image[top:bottom, left:right, ::-1])
            sizes.append(crop.shape[:2])
            packed = self._prepare(crop, picture.name)
            for key, items in data.items():
                items.append(packed[key])
        with self._lock, torch.no_grad(), self._precision():
            self.model.set_vocabulary(words.model_names)
            limit = len(words.model_names) if return_scores else 0
            batch = self.model.data_preprocessor(data, False)
            samples = self.model.predict(**batch, max_dense_classes=limit)
        return [read_maps(sample, size, return_scores) for sample, size in zip(samples, sizes)]

    def _prepare(self, image: NDArray[np.uint8], name: str) -> dict[str, Any]:
        height, width = image.shape[:2]
        shrink = min(1.0, (MAX_LABEL_PIXELS / (height * width)) ** 0.5)
        target = (max(1, round(height * shrink)), max(1, round(width * shrink)))
        if shrink < 1:
            image = np.asarray(cv2.resize(image, target[::-1], interpolation=cv2.INTER_AREA))
        item: Any = dict(img=image, img_path=name, img_shape=image.shape[:2], ori_shape=target)
        for step in self.pipeline:
            item = step(item)
        return item

    def _precision(self) -> AbstractContextManager[Any]:
        if not self.amp:
            return nullcontext()
        dtype = torch.float16 if self.device.type == 'cuda' else torch.bfloat16
        return torch.autocast(self.device.type, dtype=dtype)


def _are_sources(inputs: Any) -> bool:
    return isinstance(inputs, list) and bool(inputs) and isinstance(inputs[0], Source)
