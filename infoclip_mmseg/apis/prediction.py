"""From what the model says of an image, or of its tiles, to a prediction and its files.

Legend: h w pixels of the image as it is seen (EXIF applied), T classes, N names.
"""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from infoclip_mmseg.annotations import Exportable, Regions, label_regions
from infoclip_mmseg.apis.image_sources import OnError, Picture
from infoclip_mmseg.apis.words import Words
from infoclip_mmseg.utils.files import write_whole
from infoclip_mmseg.utils.images import ImageError
from infoclip_mmseg.visualization.overlay import draw_overlay

MAX_SCORE_BYTES = 2 << 30
MAX_ASPECT = 2.0
"""Long side over short side beyond which an image is cut."""
_OVERLAP = 0.25
# Pixels that are counted at a time.
_CHUNK = 1 << 22


@dataclass(frozen=True)
class Prediction(Exportable):
    """Labels of one image.

    Attributes:
        name: Path or address of the image, 'array 3', or 'clip.mp4#12' for a frame.
        stem: Name of the files that are written for it, without suffix.
        labels: (h, w), indices into ``names``; uint8, or uint16 with more than 256 names.
        names: N names: the T classes in the order given and, where the call has one, 'background'.
        palette: N colours [r, g, b], 0..255; the background is black.
        areas: Pixels (N,) of each name.
        mean_scores: Mean probability (N,) of the winning word over the pixels of each name, or NaN.
        num_classes: T.
        scores: Probabilities (T, h, w), float32, of the classes; None unless asked for.
        probability: Probability (h, w), float32, of the word that won; likewise.
        visualization: The overlay with its legend, RGB 0..255; None unless asked for.
    """

    name: str
    stem: str
    labels: NDArray
    names: tuple[str, ...]
    palette: list[list[int]]
    areas: NDArray[np.int64]
    mean_scores: NDArray[np.float64]
    num_classes: int
    scores: NDArray[np.float32] | None = field(default=None, repr=False)
    probability: NDArray[np.float32] | None = field(default=None, repr=False)
    visualization: NDArray[np.uint8] | None = field(default=None, repr=False)

    @property
    def shares(self) -> NDArray[np.float64]:
        """Share (N,) of the image that each name covers, 0..1."""
        return self.areas / self.labels.size

    @property
    def background_index(self) -> int | None:
        """Label of the background, or None where the call had none."""
        return self.num_classes if len(self.names) > self.num_classes else None

    def regions(self) -> Regions:
        """A region for each class that has pixels."""
        names, scores = self.names[: self.num_classes], self.mean_scores.tolist()
        found = label_regions(self.labels, names, scores)
        height, width = self.labels.shape
        return Regions(self.name, self.stem, (height, width), found)

    def found(self) -> list[dict[str, Any]]:
        """Index, name, colour, pixels, share and mean score of what is there, largest first."""
        return [
            dict(
                index=int(i),
                name=self.names[i],
                colour=list(self.palette[i]),
                pixels=int(self.areas[i]),
                share=round(float(self.shares[i]), 6),
                mean_score=round(float(self.mean_scores[i]), 6),
            )
            for i in np.argsort(-self.areas, kind='stable')
            if self.areas[i]
        ]

    def to_dict(self) -> dict[str, Any]:
        """What the JSON file holds."""
        height, width = self.labels.shape
        return dict(
            image=self.name,
            height=height,
            width=width,
            num_names=len(self.names),
            background=self.background_index,
            classes=self.found(),
        )


class Tile(NamedTuple):
    """A part of an image that the model sees, and what is kept of it: top, bottom, left, right.

    Tiles of an image keep each pixel once.
    """

    seen: tuple[int, int, int, int]
    kept: tuple[int, int, int, int]


class Maps(NamedTuple):
    """Of an image or tile (h, w): winners and their probabilities, and perhaps all of them."""

    winner: NDArray[np.int32]
    probability: NDArray[np.float32]
    dense: NDArray[np.float32] | None


def make_tiles(height: int, width: int, max_aspect: float = MAX_ASPECT) -> list[Tile]:
    """Tiles of an image: squares that overlap by a quarter or more where it is long, else itself.

    Long is one whose long side is more than ``max_aspect`` times its short side, in pixels.
    """
    short, long = sorted((height, width))
    if long <= max_aspect * short:
        whole = (0, height, 0, width)
        return [Tile(whole, whole)]
    count = math.ceil((long - short) / max(1, int(short * (1 - _OVERLAP)))) + 1
    starts = [round(i * (long - short) / (count - 1)) for i in range(count)]
    seams = [(start + short + after) // 2 for start, after in itertools.pairwise(starts)]
    tiles = []
    for start, first, last in zip(starts, [0, *seams], [*seams, long]):
        parts = ((start, start + short), (first, last))
        tiles.append(Tile(*((0, height, *p) if width == long else (*p, 0, width) for p in parts)))
    return tiles


def read_maps(sample: Any, size: tuple[int, int], return_scores: bool) -> Maps:
    """Maps of a sample, enlarged to ``size`` where the model made smaller ones."""
    winner = sample.pred_sem_seg.data[0].int().cpu().numpy()
    probability = sample.pred_probability.data[0].float().cpu().numpy()
    dense = sample.seg_logits.data.float().cpu().numpy() if return_scores else None
    if winner.shape != tuple(size):
        rows, columns = (np.arange(n) * m // n for n, m in zip(size, winner.shape))
        place = (..., rows[:, None], columns)
        winner, probability = winner[place], probability[place]
        dense = None if dense is None else dense[place]
    return Maps(winner, probability, dense)


def join_maps(size: tuple[int, int], tiles: Sequence[Tile], maps: Sequence[Maps]) -> Maps:
    """Put the maps of tiles together."""
    if len(tiles) == 1:
        return maps[0]
    whole: list[Any] = [
        None if part is None else np.empty((*part.shape[:-2], *size), part.dtype)
        for part in maps[0]
    ]
    for tile, parts in zip(tiles, maps):
        top, bottom, left, right = tile.kept
        y, x = tile.seen[0], tile.seen[2]
        inner = (..., slice(top - y, bottom - y), slice(left - x, right - x))
        for joined, part in zip(whole, parts):
            if part is not None:
                joined[..., top:bottom, left:right] = part[inner]
    return Maps(*whole)


def make_prediction(picture: Picture, maps: Maps, words: Words, return_scores: bool) -> Prediction:
    """Go from the model's words to the names of the results, count areas and average scores."""
    winner = maps.winner if len(words.model_names) > 1 else np.zeros_like(maps.winner)
    labels = words.slots.astype(np.uint16)[winner]
    if words.threshold is not None:
        labels[~(maps.probability > words.threshold)] = len(words.classes)
    count = len(words.names)
    labels = labels.astype(np.uint8 if count <= 256 else np.uint16)
    areas, total = np.zeros(count, np.int64), np.zeros(count)
    step = max(1, _CHUNK // labels.shape[1])
    for top in range(0, len(labels), step):
        rows = labels[top : top + step].ravel()
        areas += np.bincount(rows, minlength=count)
        total += np.bincount(rows, maps.probability[top : top + step].ravel(), minlength=count)
    return Prediction(
        name=picture.name,
        stem=picture.stem,
        labels=labels,
        names=words.names,
        palette=words.palette,
        areas=areas,
        mean_scores=np.divide(total, areas, out=np.full(count, np.nan), where=areas > 0),
        num_classes=len(words.classes),
        scores=None if maps.dense is None else maps.dense[words.owners],
        probability=maps.probability if return_scores else None,
    )


def draw_prediction(picture: Picture, prediction: Prediction, opacity: float) -> NDArray[np.uint8]:
    """The overlay with its legend, RGB."""
    shown = (prediction.labels, prediction.names, prediction.palette)
    return draw_overlay(picture.image, *shown, opacity)


def save_prediction(prediction: Prediction, out_dir: Path) -> None:
    """Write ``pred/STEM.png`` (labels), ``pred/STEM.json`` and, if drawn, ``vis/STEM.jpg``.

    Labels are indexed with their palette, or 16-bit grey above 256 names.
    """
    folder = out_dir / 'pred'
    labels = Image.fromarray(prediction.labels)
    if prediction.labels.dtype == np.uint8:
        labels.putpalette([value for colour in prediction.palette for value in colour])
    save_picture(labels, folder / f'{prediction.stem}.png')
    if prediction.visualization is not None:
        picture = Image.fromarray(prediction.visualization)
        save_picture(picture, out_dir / 'vis' / f'{prediction.stem}.jpg')
    write_json(folder / f'{prediction.stem}.json', prediction.to_dict())


def check_options(opacity: float, on_error: OnError) -> None:
    """A ValueError for what is no opacity, 0..1, or says of no error what is to be done."""
    if not 0 <= opacity <= 1:
        raise ValueError(f'opacity must be 0..1, got {opacity}')
    if not callable(on_error) and on_error not in ('raise', 'skip'):
        raise ValueError(f"on_error must be 'raise', 'skip' or a function, got {on_error!r}")


def check_size(picture: Picture, patch: Sequence[int]) -> None:
    """An ImageError for a picture of less than one patch (height, width) of pixels."""
    height, width = picture.image.shape[:2]
    if height < patch[0] or width < patch[1]:
        raise ImageError(
            f'{picture.name}: {width} x {height} pixels are less than one patch of {patch[1]} '
            f'x {patch[0]}; enlarge the image'
        )


def check_scores(picture: Picture, count: int) -> None:
    """An ImageError for scores of so many words that need more than MAX_SCORE_BYTES."""
    height, width = picture.image.shape[:2]
    size = 4 * height * width * count
    if size > MAX_SCORE_BYTES:
        raise ImageError(
            f'{picture.name}: scores of {count} words at {width} x {height} '
            f'pixels need {size >> 20} MiB, the limit is {MAX_SCORE_BYTES >> 20}; use fewer '
            'words, a smaller image, or return_scores=False'
        )


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write JSON in UTF-8, in one step; bytes of file names that are no text become escapes."""
    text = json.dumps(content, ensure_ascii=False, indent=1) + '\n'
    with write_whole(path, shared=True) as draft:
        draft.write_text(text, encoding='utf-8', errors='backslashreplace')


def save_picture(picture: Image.Image, path: Path) -> None:
    """Write a PNG or JPEG in one step."""
    options: dict[str, Any] = dict(quality=92, subsampling=0) if path.suffix == '.jpg' else {}
    with write_whole(path) as draft:
        picture.save(draft, 'JPEG' if path.suffix == '.jpg' else 'PNG', **options)
