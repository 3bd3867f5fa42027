from __future__ import annotations

import sys

import numpy as np
import pytest

from infoclip_mmseg.visualization.embedding_map import (
    SHOWN,
    draw_embeddings,
    embed_2d,
    sample_points,
)


def test_points_are_the_same_for_a_seed():
    assert sample_points(5, 9).tolist() == [0, 1, 2, 3, 4]
    assert np.array_equal(sample_points(99, 9, 3), sample_points(99, 9, 3))
    assert not np.array_equal(sample_points(99, 9, 3), sample_points(99, 9, 4))


def test_tsne_keeps_groups_apart_whatever_their_length():
    pytest.importorskip('sklearn')
    rng = np.random.default_rng(0)
    points = rng.normal(size=(60, 8)).astype(np.float32) * 0.1
    points[:30, 0] += 1
    points[30:, 1] += 1
    places = embed_2d(points * rng.uniform(1, 50, (60, 1)), perplexity=10)
    centres = places[:30].mean(0), places[30:].mean(0)
    near = np.linalg.norm(places - centres[0], axis=1) < np.linalg.norm(places - centres[1], axis=1)
    assert near[:30].all() and not near[30:].any()
    again = embed_2d(points, perplexity=10, seed=1)
    assert np.array_equal(again, embed_2d(points, perplexity=10, seed=1))
    with pytest.raises(ValueError, match='got 60.0 with 60 points: take more images'):
        embed_2d(points, perplexity=60.0)


def test_without_scikit_learn(monkeypatch):
    monkeypatch.setitem(sys.modules, 'sklearn', None)
    monkeypatch.setitem(sys.modules, 'sklearn.manifold', None)
    with pytest.raises(ImportError, match=r"needs scikit-learn .*pip install -e '.\[figures\]'"):
        embed_2d(np.zeros((9, 2)))


def test_dots_have_the_colours_of_their_classes(texts):
    count = SHOWN + 2
    labels = np.array([*range(count), *range(SHOWN)])
    palette = [[7 * i, 0, 255] for i in range(count)]
    places = np.zeros((len(labels), 2))
    names = [f'class {i}' for i in range(count)]
    figure = draw_embeddings({'a': (places, labels), 'b': (places, labels)}, names, palette)
    (dots,) = figure.axes[1].collections
    colours = np.round(dots.get_facecolors()[:, :3] * 255)
    assert colours[3].tolist() == palette[3] and len(set(colours[SHOWN])) == 1
    assert {'a', 'b', 'class 0', '2 more classes'} <= set(texts(figure))
