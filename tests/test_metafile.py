"""configs/metafile.yml: every config has an entry, every figure has a source."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from infoclip_mmseg.evaluation.benchmarks.table import COLUMNS, PUBLISHED, PUBLISHED_PANOPTIC

ROOT = Path(__file__).resolve().parents[1]
INDEX = yaml.safe_load((ROOT / 'configs/metafile.yml').read_text(encoding='utf-8'))
MODELS = INDEX['Models']
RESULTS = [
    pytest.param(model, result, id=f'{model["Name"]}-{result["Source"]}')
    for model in MODELS
    for result in model.get('Results', ())
]


def test_entries_and_configs_are_the_same():
    named = [model['Config'] for model in MODELS]
    shipped = {
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / 'configs').rglob('*.py')
        if not {'_base_', 'study'} & {*path.parts}
        and not path.stem.startswith(('ablation', 'pretrain'))
    }
    assert len(set(named)) == len(named)
    assert set(named) - shipped == set(), 'entries without a config'
    assert shipped - set(named) == set(), 'configs without an entry'


def test_names_and_collections():
    names = [model['Name'] for model in MODELS]
    assert len(set(names)) == len(names)
    collections = {collection['Name'] for collection in INDEX['Collections']}
    assert {model['In Collection'] for model in MODELS} == collections
    for model in MODELS:
        assert model['Metadata']['Training Data'] and model['Metadata']['Architecture']
        assert 'Weights' not in model, 'no weights of these configs are published'


@pytest.mark.parametrize('model, result', RESULTS)
def test_every_figure_says_where_it_is_from(model, result):
    assert result['Task'] and result['Dataset'] and result['Metrics']
    assert all(0 < value < 100 for value in result['Metrics'].values())
    key = {'published': 'Reference', 'measured': 'Command'}[result['Source']]
    assert result[key]
    if key == 'Command':
        assert (ROOT / result[key].split()[2]).is_file()


def test_published_figures_are_those_of_the_benchmark_table():
    clips = {'vitb16': 'ViT-B/16', 'vitl14': 'ViT-L/14'}
    clips |= {'convnext-b': 'ConvNeXt-B', 'convnext-l': 'ConvNeXt-L'}
    methods = {'catseg': 'CAT-Seg', 'infoclip': 'InfoCLIP', 'maftp': 'MAFT+', 'fcclip': 'FC-CLIP'}
    rows = {kind: dict(zip(COLUMNS, values)) for kind, values in PUBLISHED.items()}
    found = 0
    for model in MODELS:
        method, _, rest = model['Name'].partition('_')
        clip, _, data = rest.partition('_')
        key = {'ade20k': 'ade150'}.get(data, data)
        if method not in methods or clip not in clips:
            continue
        kind = methods[method], clips[clip]
        if key in COLUMNS:
            (result,) = model['Results']
            assert result['Metrics']['mIoU'] == rows[kind][key]
            found += 1
        elif data == 'ade20k-panoptic':
            (result,) = model['Results']
            assert result['Metrics'] == PUBLISHED_PANOPTIC[kind]['ade150-panoptic']
            found += 1
    assert found == 24 + 15 + 2


def test_measured_figures_of_the_composed_world_are_those_of_the_results():
    lines = (ROOT / 'configs/world/results/ablation.md').read_text(encoding='utf-8').splitlines()
    rows = dict(zero_shot='zero-shot', catseg='CAT-Seg', infoclip='InfoCLIP')
    rows.update(infoclip_l_c='L_c only', infoclip_l_d='L_d only', kl='KL', maft='MAFT')
    rows.update(maft_plus='MAFT+ (RC)', cost_volume_mi='cost-volume MI', lpam_kl='LPAM + KL')
    found = 0
    for model in MODELS:
        name = rows.get(model['Name'].removeprefix('world_'))
        if not model['Name'].startswith('world_') or name is None:
            continue
        line = next(line for line in lines if line.startswith(f'| {name} |'))
        (result,) = model['Results']
        values = [cell.split('±')[0].strip() for cell in line.split('|')[2:5]]
        assert [f'{value:.2f}' for value in result['Metrics'].values()] == values
        found += 1
    assert found == len(rows)
