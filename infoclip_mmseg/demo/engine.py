"""What the page asks for: one picture, one text of words, what to find; and how it fails.

Legend: h w pixels, T classes.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from mmengine.config import Config
from numpy.typing import NDArray
from PIL import Image

from infoclip_mmseg.apis.image_sources import Source
from infoclip_mmseg.apis.inferencer import DEFAULT_CONFIG, OpenVocabInferencer
from infoclip_mmseg.apis.prediction import Prediction
from infoclip_mmseg.apis.relation_maps import RelationMaps, align, load_lpam
from infoclip_mmseg.apis.segments import TASKS, Segments
from infoclip_mmseg.apis.words import Words, parse_words
from infoclip_mmseg.utils.images import read_image
from infoclip_mmseg.utils.resources import find_config
from infoclip_mmseg.world import WorldSpec, render_scene, scene_rng

MAX_SCORED_WORDS = 64
"""Probabilities of all words are kept up to this many words: they need 4 bytes a word and pixel."""
SCENES = (1, 4, 7, 12)
"""Of the composed world, as examples."""
SIDE, ENLARGED = 64, 6
"""Pixels: the size at which the small CLIP has learned its objects; what makes it visible."""


class PageError(ValueError):
    """What the user of the page can mend; its text is shown."""


@dataclass(frozen=True)
class PageLimits:
    """What a visitor may ask for: of an uploaded file, of the words with those for the background.

    Images of more than ``work_pixels`` are reduced to these before they are segmented.
    """

    max_bytes: int = 16 << 20
    max_pixels: int = 40_000_000
    max_words: int = 1000
    max_characters: int = 100_000
    work_pixels: int = 1_000_000


@dataclass(frozen=True)
class Outcome:
    """What is found in an image, RGB (h, w, 3), 0..255, as it was segmented.

    ``original`` is the height and width of the uploaded image in pixels; ``seconds`` is the time
    that the model took.
    """

    image: NDArray[np.uint8]
    original: tuple[int, int]
    words: Words
    seconds: float


@dataclass(frozen=True)
class LabelOutcome(Outcome):
    """A label for each pixel.

    The prediction has scores where the words are few; the alignment are maps of
    ``words.model_names``.
    """

    prediction: Prediction
    alignment: RelationMaps


@dataclass(frozen=True)
class SegmentOutcome(Outcome):
    """Panoptic or instance segments."""

    found: Segments


class DemoEngine:
    """A model that answers one request after the other.

    The config is a name or path; for weights, device and amp see :class:`OpenVocabInferencer`.
    """

    def __init__(
        self,
        config: str = DEFAULT_CONFIG,
        weights: str | os.PathLike[str] | None = None,
        device: str | None = None,
        amp: bool = False,
        limits: PageLimits | None = None,
    ) -> None:
        self.limits = limits or PageLimits()
        cfg = Config.fromfile(find_config(config))
        self.title = Path(config).stem if weights is None else f'{Path(config).stem}, {weights}'
        self.inferencer = OpenVocabInferencer(cfg, weights, device=device, amp=amp)
        self.lpam = load_lpam(cfg, weights, self.inferencer.model)
        self._lock = threading.Lock()

    @property
    def tasks(self) -> tuple[str, ...]:
        """What the model can do: 'semantic', and the tasks of segments where its head has masks."""
        finds_masks = self.inferencer.model.decode_head.finds_masks
        return ('semantic', *TASKS) if finds_masks else ('semantic',)

    def segment(self, path: Path | None, words: str, background: str = '') -> LabelOutcome:
        """Label the pixels of an uploaded file, or None; PageError or ImageError name bad input.

        Words, and those for what is no class, are one a line or between semicolons.
        """
        names, others = self._read_words(words, background)
        image, original, source = self._read_image(path)
        with self._lock:
            with _refusals():
                plan = self.inferencer.plan(names, others or None)
            start = time.perf_counter()
            scored = len(plan.model_names) <= MAX_SCORED_WORDS
            (prediction,) = self.inferencer([source], names, others or None, return_scores=scored)
            alignment = align(self.inferencer.model, image, plan.model_names, self.lpam)
            seconds = time.perf_counter() - start
        return LabelOutcome(image, original, plan, seconds, prediction, alignment)

    def find(
        self, path: Path | None, words: str, things: str = '', task: str = 'panoptic'
    ) -> SegmentOutcome:
        """Find the segments of an uploaded file, or None; errors as of :meth:`segment`.

        Things are those words whose objects are told apart; none: all.
        """
        names, _ = self._read_words(words, things=things)
        image, original, source = self._read_image(path)
        chosen = parse_words(things) or 'all'
        with self._lock:
            with _refusals():
                plan = self.inferencer.plan(names)
                results = self.inferencer.segments([source], names, chosen, task)
            start = time.perf_counter()
            (found,) = results
            seconds = time.perf_counter() - start
        return SegmentOutcome(image, original, plan, seconds, found)

    def _read_image(self, path: Path | None) -> tuple[NDArray[np.uint8], tuple[int, int], Source]:
        """The image as it is segmented, the height and width that it had, and its source."""
        if path is None:
            raise PageError('There is no image yet: drop one, or take an example.')
        picture = read_image(path, self.limits.max_pixels, name=path.name)
        image = reduce_image(picture, self.limits.work_pixels)
        height, width = picture.shape[:2]
        return image, (height, width), Source(path.name, path.stem, image[..., ::-1])

    def _read_words(
        self, words: str, background: str = '', things: str = ''
    ) -> tuple[list[str], list[str]]:
        limits, characters = self.limits, len(words) + len(background) + len(things)
        if characters > limits.max_characters:
            raise PageError(
                f'The words have {characters} characters, the limit of this page is '
                f'{limits.max_characters}.'
            )
        names, others = parse_words(words), parse_words(background)
        if not names:
            raise PageError("There are no words yet: type some, one a line or 'cat; dog'.")
        if len(names) + len(others) > limits.max_words:
            raise PageError(
                f'These are {len(names) + len(others)} words, the limit of this page is '
                f'{limits.max_words}; tools/infer.py takes more.'
            )
        return names, others


@contextmanager
def _refusals() -> Iterator[None]:
    """What words are refused for is shown."""
    try:
        yield
    except ValueError as error:
        raise PageError(str(error)) from error


def reduce_image(image: NDArray[np.uint8], pixels: int) -> NDArray[np.uint8]:
    """An image (h, w, 3) averaged down to at most so many pixels; itself where it has fewer."""
    height, width = image.shape[:2]
    scale = (pixels / (height * width)) ** 0.5
    if scale >= 1:
        return image
    size = (max(1, int(width * scale)), max(1, int(height * scale)))
    return np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8)


class Example(NamedTuple):
    """An image file and the words for it, one a line."""

    path: Path
    words: str


def draw_examples(folder: Path) -> list[Example]:
    """Draw scenes into a folder as PNG, with the names of all that they hold and two more."""
    spec = WorldSpec()
    examples = []
    for number, index in enumerate(SCENES):
        scene = render_scene(scene_rng(5, 'test', index), (SIDE, SIDE), spec)
        path = folder / f'scene_{number + 1}.png'
        enlarged = scene.image.repeat(ENLARGED, axis=0).repeat(ENLARGED, axis=1)
        Image.fromarray(enlarged).save(path)
        present = np.unique(scene.labels).tolist()
        absent = [i for i in range(len(spec.classes)) if i not in present][::7][:2]
        examples.append(Example(path, '\n'.join(spec.classes[i] for i in [*present, *absent])))
    return examples
