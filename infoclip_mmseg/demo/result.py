"""The HTML of a result: picture, legend, heat maps.

Legend: h w pixels, E entries of the legend.
"""

from __future__ import annotations

import json

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from infoclip_mmseg.demo.encoding import Heat, base64_bytes, colour_bar, data_uri, escape, heat_map
from infoclip_mmseg.demo.engine import MAX_SCORED_WORDS, Outcome
from infoclip_mmseg.utils.palette import colour_labels
from infoclip_mmseg.visualization.legend import Entry, rank_entries

MAX_ENTRIES = 40
GRID_SIDE = 192
NO_ENTRY = 255
NO_LPAM = 'No trained LPAM is loaded: this needs an InfoCLIP config and its checkpoint.'
TOO_MANY = f'Probability maps are made for up to {MAX_SCORED_WORDS} words.'


def render_result(outcome: Outcome) -> str:
    """The result panel.

    The picture, and over it labels and heat maps as pictures of their own, so that opacity and
    choice need no server; ``assets/page.js`` brings it to life.
    """
    prediction, labels = outcome.prediction, outcome.prediction.labels
    ranked = rank_entries(prediction.areas, prediction.names, prediction.palette)
    entries, rest = ranked[:MAX_ENTRIES], ranked[MAX_ENTRIES:]
    height, width = outcome.image.shape[:2]
    grid = label_grid(labels, [entry.label for entry in entries])
    maps = json.dumps([_maps_of(outcome, entry) for entry in entries], separators=(',', ':'))
    picture = data_uri(Image.fromarray(outcome.image), 'JPEG', quality=90, subsampling=0)
    colours = data_uri(Image.fromarray(colour_labels(labels, prediction.palette)))
    return (
        f'<div class="ic-result" data-grid="{base64_bytes(grid)}" data-grid-w="{grid.shape[1]}" '
        f'data-grid-h="{grid.shape[0]}" data-maps="{escape(maps)}" '
        f'style="--ic-bar:{colour_bar()}">'
        f'{_notes(outcome)}'
        f'<div class="ic-stack" style="--ratio:{width / height:.4f}">'
        f'<img class="ic-base" src="{picture}" alt="the image" draggable="false">'
        f'<img class="ic-labels" src="{colours}" alt="labels in colour" draggable="false">'
        '<img class="ic-heat" alt="heat map" draggable="false" hidden>'
        '<span class="ic-tip" hidden></span></div>'
        f'<div class="ic-status"><span>{_status(outcome)}</span><label>Opacity '
        '<input class="ic-opacity" type="range" min="0" max="100" value="60"></label></div>'
        f'<div class="ic-legend" aria-label="legend">{"".join(map(_chip, enumerate(entries)))}'
        f'{_rest(rest)}</div>'
        '<div class="ic-maps"><p class="ic-hint">Click a word or a place in the picture: heat maps '
        'of that word.</p></div></div>'
    )


def render_error(message: str) -> str:
    """A failed request, as text."""
    return f'<div class="ic-error" role="alert">{escape(message)}</div>'


def label_grid(labels: NDArray, indices: list[int]) -> NDArray[np.uint8]:
    """Labels (h, w) as places in ``indices``, thinned to ``GRID_SIDE``; 255 where in none."""
    table = np.full(max(int(labels.max()), *indices) + 1, NO_ENTRY, np.uint8)
    table[indices] = np.arange(len(indices))
    step = max(1.0, max(labels.shape) / GRID_SIDE)
    size = [max(1, int(side / step)) for side in labels.shape]
    rows, columns = ((np.arange(n) + 0.5) * side / n for n, side in zip(size, labels.shape))
    return table[labels[rows.astype(int)[:, None], columns.astype(int)]]


def _maps_of(outcome: Outcome, entry: Entry) -> list[dict[str, object]]:
    """Title, and picture or reason, of each heat map of an entry."""
    scores, alignment = outcome.prediction.scores, outcome.alignment
    if entry.label == outcome.prediction.background_index:
        return []
    owner = int(outcome.words.owners[entry.label])
    ratio = outcome.image.shape[1] / outcome.image.shape[0]
    relation = None if alignment.relation is None else alignment.relation[owner]
    probability = None if scores is None else heat_map(scores[entry.label])
    cosine = heat_map(_patches(alignment.cosine[owner], ratio))
    lpam = None if relation is None else heat_map(_patches(relation, ratio))
    return [
        _map('Probability', probability, TOO_MANY),
        _map('Cosine', cosine, ''),
        _map('LPAM', lpam, NO_LPAM),
    ]


def _map(title: str, heat: Heat | None, reason: str) -> dict[str, object]:
    if heat is None:
        return dict(title=title, reason=reason)
    return dict(title=title, uri=heat.uri, low=_short(heat.low), high=_short(heat.high))


def _short(value: float) -> str:
    return f'{value:.2f}' if abs(value) < 10 else f'{value:.3g}'


def _patches(values: NDArray[np.float32], ratio: float) -> NDArray[np.float32]:
    """A map (H, W) of patches in the shape of the image, each patch one flat rectangle."""
    longest = 160
    size = (longest, round(longest / ratio)) if ratio >= 1 else (round(longest * ratio), longest)
    size = (max(1, size[0]), max(1, size[1]))
    return np.asarray(cv2.resize(values, size, interpolation=cv2.INTER_NEAREST), np.float32)


def _chip(item: tuple[int, Entry]) -> str:
    place, entry = item
    colour = '#{:02x}{:02x}{:02x}'.format(*entry.colour)
    name, share = escape(entry.name), f'{100 * entry.share:.1f} %'
    absent = '' if entry.share else ' ic-absent'
    return (
        f'<button type="button" class="ic-chip{absent}" data-place="{place}" aria-pressed="false" '
        f'title="{name}"><i style="background:{colour}"></i><b>{name}</b><span>{share}</span>'
        '</button>'
    )


def _rest(rest: list[Entry]) -> str:
    if not rest:
        return ''
    share = 100 * sum(entry.share for entry in rest)
    return f'<span class="ic-rest">and {len(rest)} more words, {share:.1f} % together</span>'


def _status(outcome: Outcome) -> str:
    (height, width), (shown_h, shown_w) = outcome.original, outcome.image.shape[:2]
    size = f'{width} × {height} pixels'
    if (height, width) != (shown_h, shown_w):
        size += f', reduced to {shown_w} × {shown_h}'
    count = len(outcome.words.classes)
    return f'{count} word{"s" * (count != 1)} in {outcome.seconds:.2f} s · {size}'


def _notes(outcome: Outcome) -> str:
    return ''.join(f'<p class="ic-note">{escape(note)}</p>' for note in outcome.words.warnings)
