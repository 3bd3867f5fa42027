"""From what the model says of an image, or of its tiles, to a prediction.

Legend: h w pixels, M words that the model is asked for.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from infoclip_mmseg.apis.prediction import Prediction, make_prediction
from infoclip_mmseg.apis.reading import Picture
from infoclip_mmseg.apis.tiles import Tile
from infoclip_mmseg.apis.words import Words


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
    for tile, own in zip(tiles, maps):
        top, bottom, left, right = tile.kept
        y, x = tile.seen[0], tile.seen[2]
        inner = (slice(top - y, bottom - y), slice(left - x, right - x))
        outer = (slice(top, bottom), slice(left, right))
        winner[outer], probability[outer] = own.winner[inner], own.probability[inner]
        if dense is not None and own.dense is not None:
            dense[(slice(None), *outer)] = own.dense[(slice(None), *inner)]
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
