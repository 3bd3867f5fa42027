"""t-SNE of dense embeddings, coloured by class (paper, Figure 3).

Legend: P points, C channels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from infoclip_mmseg.visualization.legend import add_legend, entries_of
from infoclip_mmseg.visualization.lettering import class_label, plain

SHOWN = 30
"""Classes that get a colour, those with most points; the others are grey."""
GREY = '#c8c8c8'
PANEL = 4.2


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
    """Places (P, 2) of points (P, C) by t-SNE on their directions.

    The points are brought to unit length, so that distances follow cosines. It runs on one thread:
    the same points and seed give the same places.

    Args:
        points: (P, C), finite.
        perplexity: About how many neighbours a point has.
        seed: Of the optimisation.

    Raises:
        ImportError: See :func:`import_sklearn`.
        ValueError: The perplexity does not lie between 0 and the number of points.
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

    Args:
        panels: Title to places (P, 2) and labels (P,), indices into the names.
        names: Names of the labels.
        palette: Their colours [r, g, b], 0..255.
    """
    drawn = np.concatenate([labels for _, labels in panels.values()]).astype(np.int64)
    entries = entries_of(drawn, names, palette)
    colours = {entry.label: entry.code for entry in entries[:SHOWN]}
    figure = Figure((max(PANEL * len(panels), 6.0), PANEL), layout='constrained')
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
