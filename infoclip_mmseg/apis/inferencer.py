"""OpenVocabInferencer: own images, own words."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from mmengine.config import Config

from infoclip_mmseg.apis.hub import fetch, pack, push, unpack
from infoclip_mmseg.apis.image_sources import (
    UNREADABLE,
    Limits,
    OnError,
    Picture,
    Source,
    list_sources,
    read_pictures,
)
from infoclip_mmseg.apis.loading import build_pipeline, load_segmentor, pick_device, run_pipeline
from infoclip_mmseg.apis.prediction import (
    MAX_ASPECT,
    Maps,
    Prediction,
    Tile,
    check_options,
    check_scores,
    check_size,
    draw_prediction,
    join_maps,
    make_prediction,
    make_tiles,
    read_maps,
    save_prediction,
)
from infoclip_mmseg.apis.segments import Segments, find_segments
from infoclip_mmseg.apis.words import Background, Words, plan_words, words_key
from infoclip_mmseg.utils.resources import find_config

DEFAULT_CONFIG = 'world/zero_shot'


class _Call(NamedTuple):
    """Words and options of a call; see :meth:`OpenVocabInferencer.stream`."""

    words: Words
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
        self.classes: list[str] | None = None
        self._lock = threading.Lock()
        self._planned: tuple[Any, Words] | None = None

    @classmethod
    def from_pretrained(
        cls,
        name: str | os.PathLike[str],
        revision: str | None = None,
        token: str | None = None,
        **options: Any,
    ) -> OpenVocabInferencer:
        """The model of a folder that :meth:`save_pretrained` wrote, or of the Hub ('org/name').

        Nothing in the folder is run. ``options`` are the constructor's: ``device`` and so on. Where
        it does not fit: FileNotFoundError, HubError (a ValueError), CheckpointError.
        """
        cfg, weights, classes = unpack(fetch(name, revision, token))
        inferencer = cls(cfg, weights, **options)
        inferencer.classes = classes
        return inferencer

    def save_pretrained(
        self, folder: str | os.PathLike[str], classes: str | Sequence[str] | None = None
    ) -> Path:
        """Write weights, config and model card; returns the folder.

        ``classes`` go with them, for calls without classes; None: those that the model came with.
        """
        return pack(self.cfg, self.model, Path(folder), self._own_words(classes))

    def push_to_hub(
        self,
        repo_id: str,
        classes: str | Sequence[str] | None = None,
        private: bool | None = None,
        token: str | None = None,
    ) -> str:
        """Upload what :meth:`save_pretrained` writes; returns the address of the commit."""
        return push(self.cfg, self.model, repo_id, self._own_words(classes), private, token)

    def _own_words(self, classes: str | Sequence[str] | None) -> list[str] | None:
        return self.classes if classes is None else list(self.plan(classes).classes)

    def __call__(
        self,
        inputs: Any,
        classes: str | Sequence[str] | None = None,
        background: Background = None,
        **options: Any,
    ) -> list[Prediction]:
        """A prediction for each image, also where there is only one.

        Arguments as for :meth:`stream`, which needs less memory for many images. Where an image
        cannot be read the error that is raised has those before it as ``error.results``.
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
        classes: str | Sequence[str] | None = None,
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
                None: those of the folder that the model is from.
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
        check_options(opacity, on_error)
        limits = replace(self.limits, frame_step=frame_step)
        words = self.plan(classes, background)
        listed = isinstance(inputs, list) and bool(inputs) and isinstance(inputs[0], Source)
        sources = inputs if listed else list_sources(inputs)
        folder = None if out_dir is None else Path(out_dir)
        call = _Call(words, batch_size, return_scores, return_vis, opacity, folder)
        check = partial(self._check, call=call)
        return self._stream(read_pictures(sources, limits, check, on_error), call)

    def segments(
        self,
        inputs: Any,
        classes: str | Sequence[str] | None = None,
        things: str | Sequence[str] = 'all',
        task: str = 'panoptic',
        **options: Any,
    ) -> Iterator[Segments]:
        """Panoptic or instance segments of images, of a model that finds masks.

        Arguments and errors are those of :func:`~infoclip_mmseg.apis.segments.find_segments`.
        """
        return find_segments(self, inputs, self._chosen(classes), things, task, **options)

    def plan(self, classes: str | Sequence[str] | None, background: Background = None) -> Words:
        """The words of a call, checked; see :func:`~infoclip_mmseg.apis.words.plan_words`."""
        classes = self._chosen(classes)
        key = words_key(classes, background, self.model)
        planned = self._planned
        if planned is None or planned[0] != key:
            planned = (key, plan_words(classes, background, self.model))
            self._planned = planned if key is not None else None
        return planned[1]

    def _chosen(self, classes: str | Sequence[str] | None) -> str | Sequence[str]:
        classes = self.classes if classes is None else classes
        if classes is None:
            raise ValueError(
                "no classes: pass names, 'cat; dog', or the name of a vocabulary; only a model of "
                'save_pretrained(..., classes=...) has names of its own'
            )
        return classes

    def _stream(self, pictures: Iterator[Picture], call: _Call) -> Iterator[Prediction]:
        waiting: list[tuple[Picture, list[Tile]]] = []
        try:
            for picture in pictures:
                height, width = picture.image.shape[:2]
                waiting.append((picture, make_tiles(height, width, self.max_aspect)))
                if sum(len(tiles) for _, tiles in waiting) >= call.batch_size:
                    ready, waiting = waiting, []
                    yield from self._finish(ready, call)
        except UNREADABLE:  # raised when what was read before is finished
            yield from self._finish(waiting, call)
            raise
        yield from self._finish(waiting, call)

    def _check(self, picture: Picture, call: _Call) -> None:
        check_size(picture, self.model.backbone.patch_size)
        if call.return_scores:
            check_scores(picture, len(call.words.model_names))

    def _finish(
        self, waiting: Sequence[tuple[Picture, list[Tile]]], call: _Call
    ) -> Iterator[Prediction]:
        """Predict the pictures that wait, draw and write."""
        parts = [(picture, tile) for picture, tiles in waiting for tile in tiles]
        maps: list[Maps] = []
        for start in range(0, len(parts), call.batch_size):
            maps += self._predict(parts[start : start + call.batch_size], call)
        for picture, tiles in waiting:
            first, maps = maps[: len(tiles)], maps[len(tiles) :]
            joined = join_maps(picture.image.shape[:2], tiles, first)
            prediction = make_prediction(picture, joined, call.words, call.return_scores)
            shown = call.return_vis or call.out_dir is not None
            drawn = draw_prediction(picture, prediction, call.opacity) if shown else None
            if call.out_dir is not None:
                save_prediction(replace(prediction, visualization=drawn), call.out_dir)
            yield replace(prediction, visualization=drawn if call.return_vis else None)

    def _predict(self, parts: Sequence[tuple[Picture, Tile]], call: _Call) -> list[Maps]:
        """Maps of tiles at their own size."""
        crops = [
            np.ascontiguousarray(picture.image[top:bottom, left:right, ::-1])
            for picture, ((top, bottom, left, right), _) in parts
        ]
        packed = [
            run_pipeline(self.pipeline, crop, picture.name)
            for crop, (picture, _) in zip(crops, parts)
        ]
        data = {key: [item[key] for item in packed] for key in ('inputs', 'data_samples')}
        names, scores = call.words.model_names, call.return_scores
        with self.predicting():
            self.model.set_vocabulary(names)
            batch = self.model.data_preprocessor(data, False)
            samples = self.model.predict(**batch, max_dense_classes=len(names) if scores else 0)
        return [read_maps(s, crop.shape[:2], scores) for s, crop in zip(samples, crops)]

    @contextmanager
    def predicting(self) -> Iterator[None]:
        """The model for one thread, without gradients, in the precision that was asked for."""
        dtype = torch.float16 if self.device.type == 'cuda' else torch.bfloat16
        precision = torch.autocast(self.device.type, dtype=dtype) if self.amp else nullcontext()
        with self._lock, torch.no_grad(), precision:
            yield
