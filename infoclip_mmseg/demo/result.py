"""The HTML of a result: picture, legend, heat maps (pure functions).

Legend: h w pixels, E entries of the legend.
"""

from __future__ import annotations

import base64
import html
import io
import json
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import cv2
import numpy as np
from matplotlib import colormaps
from numpy.typing import NDArray
from PIL import Image

from infoclip_mmseg.demo.engine import MAX_SCORED_WORDS, LabelOutcome, Outcome
from infoclip_mmseg.utils.palette import colour_labels
from infoclip_mmseg.visualization.legend import Entry, rank_entries

MAX_ENTRIES = 40
GRID_SIDE = 192
MAP_SIDE = 160
"""Longer side of a heat map at most, pixels."""
NO_ENTRY = 255
NO_LPAM = 'No trained LPAM is loaded: this needs an InfoCLIP config and its checkpoint.'
TOO_MANY = f'Probability maps are made for up to {MAX_SCORED_WORDS} words.'
COLOURS: NDArray[np.uint8] = colormaps['magma'](np.arange(256), bytes=True)[:, :3]
"""Of heat maps, from the least to the largest value, (256, 3)."""
_TEMPLATE_SIGNS = str.maketrans({sign: f'&#{ord(sign)};' for sign in '{}$`\\'})


class Heat(NamedTuple):
    """A heat map: its picture as a data URI, and the values of its darkest and brightest colour."""

    uri: str
    low: float
    high: float


def escape(text: str) -> str:
    """A user's text for HTML, between tags and in attributes.

    The signs of Gradio's templates are escaped too, so that no text is read as one.
    """
    text = ''.join(c if c.isprintable() else ' ' for c in text)
    return html.escape(text, quote=True).translate(_TEMPLATE_SIGNS)


def data_uri(image: Image.Image, form: str = 'PNG', **options: int) -> str:
    """A picture as 'data:image/...;base64,...'."""
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return f'data:image/{form.lower()};base64,{base64.b64encode(buffer.getvalue()).decode()}'


def heat_map(values: NDArray[np.floating]) -> Heat:
    """Finite values (h, w) in colours from their least to their largest one.

    Larger maps than ``MAP_SIDE`` are averaged down.
    """
    scale = MAP_SIDE / max(values.shape)
    if scale < 1:
        size = (max(1, round(values.shape[1] * scale)), max(1, round(values.shape[0] * scale)))
        values = np.asarray(cv2.resize(values, size, interpolation=cv2.INTER_AREA))
    low, high = float(values.min()), float(values.max())
    levels = np.round((values - low) / max(high - low, 1e-12) * 255).astype(np.uint8)
    image = Image.fromarray(levels)
    image.putpalette(COLOURS.tobytes())
    return Heat(data_uri(image), low, high)


def colour_bar() -> str:
    """The colours of :func:`heat_map` as a CSS gradient from left to right."""
    stops = ', '.join(f'#{colour.tobytes().hex()}' for colour in COLOURS[::17])
    return f'linear-gradient(90deg, {stops})'


def render_labels(outcome: LabelOutcome) -> str:
    """The result panel of labels: a legend entry a word, with its heat maps."""
    prediction, labels = outcome.prediction, outcome.prediction.labels
    ranked = rank_entries(prediction.areas, prediction.names, prediction.palette)
    entries, rest = ranked[:MAX_ENTRIES], ranked[MAX_ENTRIES:]
    share = 100 * sum(entry.share for entry in rest)
    return render_panel(
        outcome,
        labels,
        colour_labels(labels, prediction.palette),
        entries,
        maps=[_maps_of(outcome, entry) for entry in entries],
        rest=f'and {len(rest)} more words, {share:.1f} % together' if rest else '',
        hint='Click a word or a place in the picture: heat maps of that word.',
    )


def render_panel(
    outcome: Outcome,
    labels: NDArray,
    colours: NDArray[np.uint8],
    entries: Sequence[Entry],
    maps: Sequence[Sequence[Mapping[str, object]]],
    rest: str,
    hint: str,
    below: str = '',
) -> str:
    """A result panel of labels (h, w), their colours (h, w, 3) and a legend of E entries.

    The picture, and over it labels and heat maps as pictures of their own, so that opacity and
    choice need no server; ``assets/page.js`` brings it to life. ``maps`` are those of each entry.
    ``rest`` says what the legend leaves out, ``hint`` what a click does; ``below`` is HTML.
    """
    height, width = outcome.image.shape[:2]
    grid = label_grid(labels, [entry.label for entry in entries])
    places = base64.b64encode(grid.tobytes()).decode()
    picture = data_uri(Image.fromarray(outcome.image), 'JPEG', quality=90, subsampling=0)
    notes = ''.join(f'<p class="ic-note">{escape(note)}</p>' for note in outcome.words.warnings)
    return (
        f'<div class="ic-result" data-grid="{places}" data-grid-w="{grid.shape[1]}" '
        f'data-grid-h="{grid.shape[0]}" '
        f'data-maps="{escape(json.dumps(maps, separators=(",", ":")))}" '
        f'style="--ic-bar:{colour_bar()}">'
        f'{notes}'
        f'<div class="ic-stack" style="--ratio:{width / height:.4f}">'
        f'<img class="ic-base" src="{picture}" alt="the image" draggable="false">'
        f'<img class="ic-labels" src="{data_uri(Image.fromarray(colours))}" '
        'alt="labels in colour" draggable="false">'
        '<img class="ic-heat" alt="heat map" draggable="false" hidden>'
        '<span class="ic-tip" hidden></span></div>'
        f'<div class="ic-status"><span>{_status(outcome)}</span><label>Opacity '
        '<input class="ic-opacity" type="range" min="0" max="100" value="60"></label></div>'
        f'<div class="ic-legend" aria-label="legend">{"".join(map(_chip, enumerate(entries)))}'
        f'{f"""<span class="ic-rest">{rest}</span>""" if rest else ""}</div>'
        f'<div class="ic-maps"><p class="ic-hint">{hint}</p></div>{below}</div>'
    )


def render_error(message: str) -> str:
    """A failed request, as text."""
    return f'<div class="ic-error" role="alert">{escape(message)}</div>'


def label_grid(labels: NDArray, indices: list[int]) -> NDArray[np.uint8]:
    """Labels (h, w) as places in ``indices``, thinned to ``GRID_SIDE``; 255 where in none."""
    table = np.full(max([int(labels.max()), *indices]) + 1, NO_ENTRY, np.uint8)
    table[indices] = np.arange(len(indices))
    step = max(1.0, max(labels.shape) / GRID_SIDE)
    size = [max(1, int(side / step)) for side in labels.shape]
    rows, columns = ((np.arange(n) + 0.5) * side / n for n, side in zip(size, labels.shape))
    return table[labels[rows.astype(int)[:, None], columns.astype(int)]]


def _maps_of(outcome: LabelOutcome, entry: Entry) -> list[dict[str, object]]:
    """Title, and picture or reason, of each heat map of an entry."""
    scores, alignment = outcome.prediction.scores, outcome.alignment
    if entry.label == outcome.prediction.background_index:
        return []
    owner = int(outcome.words.owners[entry.label])
    shape = outcome.image.shape[:2]
    height, width = (max(1, round(MAP_SIDE * side / max(shape))) for side in shape)

    def patches(values: NDArray[np.float32]) -> NDArray[np.float32]:
        """A map (H, W) of patches in the shape of the image, each patch one flat rectangle."""
        resized = cv2.resize(values, (width, height), interpolation=cv2.INTER_NEAREST)
        return np.asarray(resized, np.float32)

    lpam = None if alignment.relation is None else patches(alignment.relation[owner])
    return [
        map_entry('Probability', None if scores is None else scores[entry.label], TOO_MANY),
        map_entry('Cosine', patches(alignment.cosine[owner])),
        map_entry('LPAM', lpam, NO_LPAM),
    ]


def map_entry(
    title: str, values: NDArray[np.floating] | None, reason: str = ''
) -> dict[str, object]:
    """Title, picture and ends of a heat map (h, w), or the reason why there is none."""
    if values is None:
        return dict(title=title, reason=reason)
    uri, *ends = heat_map(values)
    low, high = (f'{v:.2f}' if abs(v) < 10 else f'{v:.3g}' for v in ends)
    return dict(title=title, uri=uri, low=low, high=high)


def _chip(item: tuple[int, Entry]) -> str:
    place, entry = item
    name, share = escape(entry.name), f'{100 * entry.share:.1f} %'
    absent = '' if entry.share else ' ic-absent'
    return (
        f'<button type="button" class="ic-chip{absent}" data-place="{place}" aria-pressed="false" '
        f'title="{name}"><i style="background:{entry.code}"></i><b>{name}</b><span>{share}</span>'
        '</button>'
    )


def _status(outcome: Outcome) -> str:
    (height, width), (shown_h, shown_w) = outcome.original, outcome.image.shape[:2]
    size = f'{width} × {height} pixels'
    if (height, width) != (shown_h, shown_w):
        size += f', reduced to {shown_w} × {shown_h}'
    count = len(outcome.words.classes)
    return f'{count} word{"s" * (count != 1)} in {outcome.seconds:.2f} s · {size}'
