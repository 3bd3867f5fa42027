"""The paper's figures: embeddings, heat maps of words, two loss weights."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from infoclip_mmseg.experiments.ablation.tables import make_results, read_results
from infoclip_mmseg.visualization.paper_figures import (
    SHOWN,
    draw_alignment,
    draw_embeddings,
    draw_weights,
    embed_2d,
    limits,
    parse_weights,
    sample_points,
)

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / 'configs/world/results'
IMAGE = np.full((30, 40, 3), 128, np.uint8)


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


@pytest.mark.parametrize('scale', ['row', 'map'])
def test_alignment_has_a_column_a_word_and_a_row_a_map(scale, texts):
    maps = np.linspace(0, 1, 2 * 3 * 4, dtype=np.float32).reshape(2, 3, 4)
    rows = {'cosine': [maps, maps], 'LPAM': [maps * 9, maps]}
    figure = draw_alignment([IMAGE, IMAGE], rows, ['cat', 'dog'], scale)
    drawn = [image for axis in figure.axes for image in axis.get_images()]
    heats = [image for image in drawn if image.get_array().shape == (3, 4)]
    assert len(heats) == 2 * 2 * 2
    scales = {tuple(np.round(image.get_clim(), 2)) for image in heats}
    wide = limits(maps * 9)[1] if scale == 'row' else limits(maps[1] * 9)[1]
    assert max(high for _, high in scales) == pytest.approx(wide, abs=0.01)
    assert len(scales) == (2 if scale == 'row' else 4)
    assert {'cat', 'dog', 'image', 'cosine', 'LPAM'} <= set(texts(figure))


def test_alignment_checks():
    maps = np.zeros((2, 3, 4), np.float32)
    assert limits(maps)[0] < limits(maps)[1]
    with pytest.raises(
        ValueError, match=r"row 'cosine' needs maps of 3 words for each of 1 images"
    ):
        draw_alignment([IMAGE], {'cosine': [maps]}, ['a', 'b', 'c'])
    with pytest.raises(ValueError, match="scale must be 'row' or 'map', got 'x'"):
        draw_alignment([IMAGE], {'cosine': [maps]}, ['a', 'b'], 'x')


def test_weights_in_names():
    assert parse_weights('L_c 0.1, L_d 1e-2') == (('L_c', 'L_d'), (0.1, 0.01))
    assert parse_weights('lambda_c=1, lambda_d=2').names == ('lambda_c', 'lambda_d')
    assert parse_weights('CAT-Seg') is None and parse_weights('a 1.1.1, b 2') is None


def test_grid_of_the_repository(texts):
    files = [RESULTS / 'ablation_lambda.csv', RESULTS / 'ablation_lambda_more.csv']
    results = read_results([*files, files[0]])
    figure = draw_weights(results, tests=['joint'], figures=['harmonic'])
    axis = figure.axes[0]
    assert axis.get_images()[0].get_array().shape == (3, 3)
    shown = (results['test'] == 'joint') & (results['figure'] == 'harmonic')
    mean = results['value'][shown & (results['run'] == 'L_c 0.1, L_d 0.01')].mean()
    assert axis.get_images()[0].get_array()[1, 0] == pytest.approx(mean)
    assert any(f'{mean:.2f}' in text and 'n = 5' in text for text in texts(figure))
    assert any('CAT-Seg' in text for text in texts(figure))
    assert len(draw_weights(results).axes) == 2 * 2 * 3


def test_missing_pairs_stay_empty():
    values = [(f'c {c}, d {d}', 0, 't', 'f', c + d) for c, d in ((1, 1), (2, 3))]
    cells = draw_weights(make_results(values)).axes[0].get_images()[0].get_array()
    assert np.ma.getmaskarray(np.ma.masked_invalid(cells)).tolist() == [
        [False, True],
        [True, False],
    ]


def test_bad_results(tmp_path):
    path = tmp_path / 'r.csv'
    path.write_text('run,mean\na,1\n')
    with pytest.raises(ValueError, match='r.csv: expected the results.csv of tools/ablation.py'):
        read_results([path])
    path.write_text('run,seed,test,figure,value\na,0,t,f,x\n')
    with pytest.raises(ValueError, match='r.csv, line 2: expected'):
        read_results([path])
    path.write_text('run,seed,test,figure,value\na,0,t,f,1\na,0,t,f,2\n')
    with pytest.raises(ValueError, match='is 2.0, but 1.0 before'):
        read_results([path])
    with pytest.raises(ValueError, match="expected runs named after the weights .* got 'a'"):
        draw_weights(make_results([('a', 0, 't', 'f', 1.0)]))
    with pytest.raises(ValueError, match=r"no test 'u'; there are \['t'\]"):
        draw_weights(make_results([('c 1, d 1', 0, 't', 'f', 1.0)]), tests=['u'])
