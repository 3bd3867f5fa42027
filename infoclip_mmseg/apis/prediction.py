"""From what the model says of an image, or of its tiles, to a prediction and its files."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from infoclip_mmseg.apis.reading import Picture
from infoclip_mmseg.apis.tiles import Tile
from infoclip_mmseg.apis.words import Words

# Pixels that are counted at a time.
_CHUNK = 1 << 22


@dataclass(frozen=True)
class Prediction:
    """Labels of one image.

    Legend: h w pixels of the image as it is seen (EXIF applied), T classes, N names.

    Attributes:
        name: Path or address of the image, 'array 3', or 'clip.mp4#12' for a frame.
        stem: Name of the files that are written for it, without suffix.
        labels: (h, w), indices into ``names``; uint8, or uint16 with more than 256 names.
        names: N names: the T classes in the order given and, where the call has one, 'background'.
        palette: N colours [r, g, b], 0..255; the background is black.
        areas: Pixels (N,) of each name.
        mean_scores: Mean probability (N,) of the winning word over the pixels of each name; NaN
            where it has none.
        num_classes: T.
        scores: Probabilities (T, h, w), float32, of the classes; None unless asked for.
        probability: Probability (h, w), float32, of the word that won; None unless scores were
            asked for.
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

    def found(self) -> list[dict[str, Any]]:
        """Index, name, colour, pixels, share and mean score of what is there, largest first."""
        order = np.argsort(-self.areas, kind='stable')
        return [
            dict(
                index=int(i),
                name=self.names[i],
                colour=list(self.palette[i]),
                pixels=int(self.areas[i]),
                share=round(float(self.shares[i]), 6),
                mean_score=round(float(self.mean_scores[i]), 6),
            )
            for i in order
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


def make_prediction(
    name: str,
    stem: str,
    labels: NDArray,
    probability: NDArray[np.float32],
    words: Words,
    scores: NDArray[np.float32] | None = None,
    keep_probability: bool = False,
) -> Prediction:
    """Count areas and average scores.

    Args:
        name, stem: See :class:`Prediction`.
        labels: (h, w), indices into ``words.names``.
        probability: (h, w) of the word that won.
        words: The words of the call.
        scores: (T, h, w) or None.
        keep_probability: Whether the result holds ``probability``.
    """
    count = len(words.names)
    labels = labels.astype(np.uint8 if count <= 256 else np.uint16)
    areas, total = np.zeros(count, np.int64), np.zeros(count)
    step = max(1, _CHUNK // labels.shape[1])
    for top in range(0, len(labels), step):
        rows = labels[top : top + step].ravel()
        areas += np.bincount(rows, minlength=count)
        total += np.bincount(rows, probability[top : top + step].ravel(), minlength=count)
    means = np.divide(total, areas, out=np.full(count, np.nan), where=areas > 0)
    return Prediction(
        name,
        stem,
        labels,
        words.names,
        words.palette,
        areas,
        means,
        len(words.classes),
        scores,
        probability if keep_probability else None,
    )


@dataclass(frozen=True)
class Maps:
    """Of an image or tile (h, w): winners and their probabilities, and perhaps all of them."""

    winner: NDArray[np.int32]
    probability: NDArray[np.float32]
    dense: NDArray[np.float32] | None


def read_maps(sample: Any, size: tuple[int, int], return_scores: bool) -> Maps:
    """Maps of a sample, enlarged to ``size`` where the model made smaller ones."""
    winner = sample.pred_sem_seg.data[0].int().cpu().numpy()
    probability = sample.pred_probability.data[0].float().cpu().numpy()
    dense = sample.seg_logits.data.float().cpu().numpy() if return_scores else None
    if winner.shape != tuple(size):
        rows = np.arange(size[0]) * winner.shape[0] // size[0]
        columns = np.arange(size[1]) * winner.shape[1] // size[1]
        grid = np.ix_(rows, columns)
        winner, probability = winner[grid], probability[grid]
        if dense is not None:
            dense = dense[:, rows[:, None], columns]
    return Maps(winner, probability, dense)


def join_maps(size: tuple[int, int], tiles: Sequence[Tile], maps: Sequence[Maps]) -> Maps:
    """Put the maps of tiles together."""
    if len(tiles) == 1:
        return maps[0]
    first = maps[0].dense
    winner = np.empty(size, np.int32)
    probability = np.empty(size, np.float32)
    dense = None if first is None else np.empty((len(first), *size), np.float32)
    for tile, part in zip(tiles, maps):
        top, bottom, left, right = tile.kept
        y, x = tile.seen[0], tile.seen[2]
        inner = (slice(top - y, bottom - y), slice(left - x, right - x))
        outer = (slice(top, bottom), slice(left, right))
        winner[outer], probability[outer] = part.winner[inner], part.probability[inner]
        if dense is not None and part.dense is not None:
            dense[(slice(None), *outer)] = part.dense[(slice(None), *inner)]
    return Maps(winner, probability, dense)


def name_labels(picture: Picture, maps: Maps, words: Words, return_scores: bool) -> Prediction:
    """From the model's words to the names of the results."""
    winner = maps.winner if len(words.model_names) > 1 else np.zeros_like(maps.winner)
    labels = words.slots.astype(np.uint16)[winner]
    if words.threshold is not None:
        labels[~(maps.probability > words.threshold)] = len(words.classes)
    scores = None if maps.dense is None else maps.dense[words.owners]
    return make_prediction(
        picture.name, picture.stem, labels, maps.probability, words, scores, return_scores
    )


def label_image(labels: NDArray, palette: list[list[int]]) -> Image.Image:
    """Label map (h, w) as an image: indexed with its palette, or 16-bit grey above 256 names."""
    if labels.dtype == np.uint8:
        image = Image.fromarray(labels)
        image.putpalette([value for colour in palette for value in colour])
        return image
    return Image.fromarray(labels.astype(np.uint16))


def save_prediction(prediction: Prediction, out_dir: Path) -> None:
    """Write ``pred/STEM.png`` (labels), ``pred/STEM.json`` and, if drawn, ``vis/STEM.jpg``."""
    folder = out_dir / 'pred'
    folder.mkdir(parents=True, exist_ok=True)
    label_image(prediction.labels, prediction.palette).save(folder / f'{prediction.stem}.png')
    if prediction.visualization is not None:
        (out_dir / 'vis').mkdir(exist_ok=True)
        picture = Image.fromarray(prediction.visualization)
        picture.save(out_dir / 'vis' / f'{prediction.stem}.jpg', quality=92, subsampling=0)
    write_json(folder / f'{prediction.stem}.json', prediction.to_dict())


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write JSON in UTF-8; bytes of file names that are no text become escapes."""
    text = json.dumps(content, ensure_ascii=False, indent=1) + '\n'
    path.write_text(text, encoding='utf-8', errors='backslashreplace')
