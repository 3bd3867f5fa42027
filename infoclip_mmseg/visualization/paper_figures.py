"""The paper's figures: t-SNE of embeddings (3), heat maps of words (4), two loss weights (5).

Legend: n images, h w pixels, T words, H W grid of patches, P points, C channels.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from infoclip_mmseg.visualization.legend import add_legend, entries_of
from infoclip_mmseg.visualization.lettering import class_label, plain
from infoclip_mmseg.visualization.overlay import PHOTO_SIDE, fit_side

if TYPE_CHECKING:
    import pandas as pd

SHOWN = 30
"""Classes of t-SNE that get a colour, those with most points; the others are grey."""
GREY = '#c8c8c8'
CELL = 1.75
"""Width of an image among heat maps, in inches."""
_PAIR = re.compile(r'\s*(.+?)[\s=]+([-+.\deE]+)\s*,\s*(.+?)[\s=]+([-+.\deE]+)\s*')


def import_sklearn() -> Any:
    """The t-SNE class of scikit-learn, and the limit on its threads; an ImportError without it."""
    try:
        from sklearn.manifold import TSNE
        from threadpoolctl import threadpool_limits
    except ImportError as error:
        raise ImportError(
            f"t-SNE needs scikit-learn ({error}): pip install -e '.[figures]'"
        ) from error
    return TSNE, threadpool_limits


def embed_2d(points: NDArray, perplexity: float = 30.0, seed: int = 0) -> NDArray[np.float32]:
    """Places (P, 2) of finite points (P, C) by t-SNE on their directions.

    The points are brought to unit length, so that distances follow cosines. It runs on one thread:
    the same points and seed give the same places. The perplexity (about how many neighbours a point
    has) must lie between 0 and the number of points, else a ValueError is raised.
    """
    tsne, threadpool_limits = import_sklearn()
    if not 0 < perplexity < len(points):
        raise ValueError(
            f'perplexity must be above 0 and below the number of points, got {perplexity} with '
            f'{len(points)} points: take more images or a lower perplexity'
        )
    norms = np.linalg.norm(points, axis=1, keepdims=True)
    unit = (points / np.maximum(norms, 1e-12)).astype(np.float32)
    method = tsne(perplexity=perplexity, init='pca', learning_rate='auto', random_state=seed)
    with threadpool_limits(limits=1):
        return np.asarray(method.fit_transform(unit), np.float32)


def sample_points(count: int, most: int, seed: int = 0) -> NDArray[np.int64]:
    """Indices, ascending, of at most ``most`` of ``count`` points, the same for the same seed."""
    if count <= most:
        return np.arange(count)
    return np.sort(np.random.default_rng(seed).choice(count, most, replace=False))


def draw_embeddings(
    panels: Mapping[str, tuple[NDArray, NDArray]],
    names: Sequence[str],
    palette: Sequence[Sequence[int]],
) -> Figure:
    """Panels side by side, a dot a point; a legend below.

    ``panels`` maps titles to places (P, 2) and labels (P,), indices into names and palette, colours
    [r, g, b] of 0..255.
    """
    drawn = np.concatenate([labels for _, labels in panels.values()]).astype(np.int64)
    entries = entries_of(drawn, names, palette)
    colours = {entry.label: entry.code for entry in entries[:SHOWN]}
    figure = Figure((max(4.2 * len(panels), 6.0), 4.2), layout='constrained')
    axes = figure.subplots(1, len(panels), squeeze=False)[0]
    for axis, (title, (places, labels)) in zip(axes, panels.items()):
        dots = [colours.get(int(label), GREY) for label in labels]
        many = len(labels) > 5000
        axis.scatter(*places.T, s=9, c=dots, linewidths=0, alpha=0.85, rasterized=many)
        axis.set(xticks=[], yticks=[])
        axis.set_title(plain(title, 44), fontsize=11)
    shown = [(class_label(names[label]), colour) for label, colour in colours.items()]
    rest = len(entries) - len(shown)
    add_legend(figure, [*shown, (f'{rest} more classes', GREY)] if rest else shown)
    return figure


def draw_alignment(
    images: Sequence[NDArray[np.uint8]],
    maps: Mapping[str, Sequence[NDArray[np.float32]]],
    names: Sequence[str],
    scale: str = 'row',
) -> Figure:
    """A block of rows an image: the image, then a row for each kind of map, a column a word.

    Images are n (h, w, 3), RGB 0..255; ``maps`` has the title of a row and its n maps (T, H, W). By
    the scale 'row' the words of a row share one, shown at its right, so that they compare; by 'map'
    each map has its own, written below it.
    """
    if scale not in ('row', 'map'):
        raise ValueError(f"scale must be 'row' or 'map', got {scale!r}")
    for title, column in maps.items():
        counts = [len(m) for m in column]
        if counts != [len(names)] * len(images):
            raise ValueError(
                f'row {title!r} needs maps of {len(names)} words for each of {len(images)} images, '
                f'got {counts}'
            )
    aspects = [max(0.25, min(image.shape[0] / image.shape[1], 4.0)) for image in images]
    heights = [CELL * aspect for aspect in aspects for _ in maps]
    gap = 0.14 if scale == 'row' else 0.3
    width = CELL * (1 + len(names)) + 0.9
    picture = Figure((width, sum(heights) + gap * len(heights) + 0.3), layout='constrained')
    grid = picture.add_gridspec(len(heights), 1 + len(names), height_ratios=heights)
    for index, image in enumerate(images):
        first, small = index * len(maps), fit_side(image, 0, PHOTO_SIDE)
        axis = picture.add_subplot(grid[first : first + len(maps), 0])
        axis.imshow(small)
        axis.set(xticks=[], yticks=[])
        grey = small.mean(axis=2).astype(np.uint8)
        for line, (title, column) in enumerate(maps.items()):
            cells = [picture.add_subplot(grid[first + line, 1 + t]) for t in range(len(names))]
            _draw_row(picture, cells, grey, column[index], scale)
            cells[0].set_ylabel('\n'.join(plain(line) for line in title.splitlines()), fontsize=8)
            if first + line == 0:
                axis.set_title('image', fontsize=10)
                for cell, name in zip(cells, names):
                    cell.set_title(plain(name, 22), fontsize=10)
    return picture


def limits(values: NDArray[np.float32]) -> tuple[float, float]:
    """Ends of a colour scale: the first and the 99th percentile, never equal."""
    low, high = np.percentile(values, (1, 99)).tolist()
    return (low, high) if high > low else (low - 1e-6, low + 1e-6)


def _draw_row(
    picture: Figure, cells: Sequence[Any], grey: NDArray, maps: NDArray[np.float32], scale: str
) -> None:
    height, width = grey.shape
    for cell, values in zip(cells, maps):
        low, high = limits(maps if scale == 'row' else values)
        cell.imshow(grey, cmap='gray', vmin=0, vmax=255)
        look = dict(cmap='turbo', vmin=low, vmax=high, alpha=0.62, interpolation='bilinear')
        drawn = cell.imshow(values, extent=(-0.5, width - 0.5, height - 0.5, -0.5), **look)
        cell.set(xticks=[], yticks=[])
        if scale == 'map':
            cell.set_xlabel(f'{low:.2f} to {high:.2f}', fontsize=7, labelpad=2)
    if scale == 'row':
        bar = picture.colorbar(drawn, ax=cells, fraction=0.05, aspect=14, pad=0.01, shrink=0.85)
        bar.ax.tick_params(labelsize=7)


class Weights(NamedTuple):
    """What a run's name says: 'L_c 0.1, L_d 1' has names ('L_c', 'L_d') and values (0.1, 1)."""

    names: tuple[str, str]
    values: tuple[float, float]


def parse_weights(run: str) -> Weights | None:
    """The two weights in a run's name, or None where it is not of this form."""
    match = _PAIR.fullmatch(run)
    try:
        return match and Weights((match[1], match[3]), (float(match[2]), float(match[4])))
    except ValueError:
        return None


def draw_weights(
    results: pd.DataFrame, tests: Sequence[str] = (), figures: Sequence[str] = ()
) -> Figure:
    """A panel for each test (down) and figure (across): means over seeds, the weights as axes.

    Runs whose names hold no weights are baselines: their means stand in the titles. What was not
    run stays white. Results have the columns `run`, `test`, `figure` and `value`, a row a seed; no
    tests or figures stands for all.
    """
    runs = list(results['run'].unique())
    grid = {run: weights for run in runs if (weights := parse_weights(run)) is not None}
    kinds = {weights.names for weights in grid.values()}
    if len(kinds) != 1:
        raise ValueError(
            "expected runs named after the weights of two losses, 'L_c 0.1, L_d 1.0', got "
            f'{", ".join(map(repr, runs)) or "no run"}'
        )
    tests = _choose('test', tests, results['test'])
    figures = _choose('figure', figures, results['figure'])
    picture = Figure((3.3 * len(figures), 2.9 * len(tests)), layout='constrained')
    axes = picture.subplots(len(tests), len(figures), squeeze=False)
    for line, test in zip(axes, tests):
        for axis, figure in zip(line, figures):
            chosen = results[(results['test'] == test) & (results['figure'] == figure)]
            finite = chosen[np.isfinite(chosen['value'])].groupby('run')['value']
            values = finite.agg(['count', 'mean', 'std']).reindex(runs)
            _draw_panel(picture, axis, values, grid)
            title = plain(f'{figure} · {test}' if len(tests) > 1 else figure, 44)
            baselines = values['mean'].drop(grid).items()
            others = ', '.join(f'{plain(run)} {mean:.2f}' for run, mean in baselines)
            axis.set_title('\n'.join(filter(None, [title, others])), fontsize=9)
    (down, across) = kinds.pop()
    for axis in axes[-1]:
        axis.set_xlabel(f'weight of {plain(across)}', fontsize=9)
    for axis in axes[:, 0]:
        axis.set_ylabel(f'weight of {plain(down)}', fontsize=9)
    return picture


def _draw_panel(
    picture: Figure, axis: Any, values: pd.DataFrame, grid: Mapping[str, Weights]
) -> None:
    rows, columns = (sorted({w.values[k] for w in grid.values()}) for k in (0, 1))
    cells = np.full((len(rows), len(columns)), np.nan)
    places = {run: (rows.index(w.values[0]), columns.index(w.values[1])) for run, w in grid.items()}
    for run, place in places.items():
        cells[place] = values['mean'][run]
    drawn = axis.imshow(cells, cmap='viridis', origin='lower', aspect='auto')
    for run, (row, column) in places.items():
        colour = 'white' if drawn.norm(cells[row, column]) < 0.6 else 'black'
        style = dict(ha='center', va='center', fontsize=8, color=colour)
        axis.text(column, row, _cell_text(*values.loc[run]), **style)
    axis.set_xticks(range(len(columns)), [f'{value:g}' for value in columns])
    axis.set_yticks(range(len(rows)), [f'{value:g}' for value in rows])
    axis.tick_params(labelsize=8)
    picture.colorbar(drawn, ax=axis, fraction=0.05, pad=0.02).ax.tick_params(labelsize=7)


def _cell_text(count: float, mean: float, std: float) -> str:
    """Mean, standard deviation and number of seeds."""
    if np.isnan(mean):
        return ''
    more = '' if np.isnan(std) else f'\n± {std:.2f}\nn = {count:.0f}'
    return f'{mean:.2f}{more}'


def _choose(kind: str, wanted: Sequence[str], known: Iterable[str]) -> list[str]:
    known = list(dict.fromkeys(known))
    unknown = [name for name in wanted if name not in known]
    if unknown:
        raise ValueError(f'no {kind} {", ".join(map(repr, unknown))}; there are {known}')
    return list(wanted) or known
