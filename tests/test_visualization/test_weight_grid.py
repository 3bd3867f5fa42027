from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from infoclip_mmseg.experiments.ablation.tables import make_results, read_results
from infoclip_mmseg.visualization.weight_grid import draw_weights, parse_weights

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / 'configs/world/results'


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
