"""tools/test.py --benchmarks ade150-panoptic, and MAFT+'s class lists for all benchmarks."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from miniatures import make_voc
from mmengine.config import Config
from mmseg.registry import MODELS
from original_archives import ade_panoptic_maps, make_ade150_panoptic
from test_benchmark_runs import CONFIG as CATSEG
from test_benchmark_runs import ROOT, evaluate, tool

from infoclip_mmseg.datasets.benchmarks import BENCHMARKS, PANOPTIC_BENCHMARKS
from infoclip_mmseg.datasets.prepare.panoptic import THINGS
from infoclip_mmseg.evaluation.benchmarks import check_finds_masks
from infoclip_mmseg.models.decode_heads.mask_classification import MaskClassificationHead

MAFTP = """
_base_ = ['{root}/configs/toy/maftp_toy_ade-3-images.py']
_words = dict(test='maftp_coco')  # of its own test set, not of benchmarks
custom_hooks = [dict(type='VocabularyHook', vocabularies=_words)]
"""


@pytest.fixture(scope='module')
def data(tmp_path_factory):
    """ADE20K panoptic as prepared, and VOC."""
    root = tmp_path_factory.mktemp('panoptic') / 'data'
    make_ade150_panoptic(root)
    make_voc(root, 'mmseg')
    return root


@pytest.fixture
def place(data, program, tmp_path, monkeypatch):
    """Folder with tiny.py, tiny.pth and data/."""
    monkeypatch.chdir(tmp_path)
    assert program('ade150-panoptic', '--root', str(data)) == 0
    shutil.copytree(data, 'data')
    Path('tiny.py').write_text(MAFTP.format(root=ROOT))
    torch.manual_seed(0)
    model = MODELS.build(Config.fromfile('tiny.py').model)
    state = {k: v for k, v in model.state_dict().items() if not k.startswith('neck.')}
    torch.save(dict(state_dict=state), 'tiny.pth')
    return tmp_path


def log(place: Path) -> str:
    return max(place.glob('work_dirs/tiny/*/*.log')).read_text()


@pytest.mark.parametrize('panoptic', [False, True])
def test_segments_and_label_maps_in_one_run(place, capsys, panoptic):
    """Whatever the predictions of the config's own test set are."""
    options = ['--cfg-options', f'model.test_cfg.panoptic={panoptic}']
    results = evaluate('ade150-panoptic', 'voc20', *options)['results']
    assert list(results) == ['voc20', 'ade150-panoptic']
    assert {'mIoU', 'mIoU_present'} <= results['voc20']['figures'].keys()
    figures = results['ade150-panoptic']['figures']
    assert figures.keys() == {f'{f}{g}' for f in ('PQ', 'SQ', 'RQ') for g in GROUPS}
    assert [r['vocabulary'] for r in results.values()] == ['voc20', 'ade150']
    text = capsys.readouterr().out
    assert '| A-150 panoptic | PQ | SQ | RQ | PQ things |' in text and '| mIoU | A-847 |' in text
    assert '* A-150 panoptic: 2 images, the published evaluation has 2000.' in text
    names = re.findall(r'vocabulary for test: (\d+) names for (\w+)', log(place))
    assert names == [('20', 'PascalVOC20Dataset'), ('150', 'PanopticDataset')]


GROUPS = ('', '_things', '_stuff')


def test_the_true_segments_have_full_marks(place, monkeypatch):
    """At the images' own sizes, with the things of the data set."""
    seeds, asked = iter([1, 2]), []

    def segments_of(self, classes, masks, things):
        _, _, ids = ade_panoptic_maps(next(seeds))
        asked.append(tuple(things))
        assert masks.shape[-2:] == ids.shape
        values = [value for value in np.unique(ids).tolist() if value]
        found = [dict(id=value, label=value // 1000 - 1) for value in values]
        return torch.from_numpy(ids), found

    monkeypatch.setattr(MaskClassificationHead, 'segments_of', segments_of)
    figures = evaluate('ade150-panoptic')['results']['ade150-panoptic']['figures']
    assert figures == {f'{f}{g}': 100 for f in ('PQ', 'SQ', 'RQ') for g in GROUPS}
    assert asked == [THINGS, THINGS]


def test_class_lists_of_maft_plus(place):
    results = evaluate('voc20', 'ade150-panoptic', '--vocabularies', 'maftp')['results']
    assert [r['vocabulary'] for r in results.values()] == ['maftp_voc20', 'maftp_ade150']
    assert "150 names for PanopticDataset, 'wall, walls, brick wall," in log(place)
    table = json.loads(Path('work_dirs/tiny/benchmarks/table1.json').read_text())['table']
    assert {row['method'] for row in table} == {'tiny tiny.pth, class lists maftp'}
    # Results of the benchmarks' own lists are others.
    again = evaluate('voc20')['results']['voc20']
    assert again['vocabulary'] == 'voc20'
    assert again['fingerprint'] != results['voc20']['fingerprint']


def test_a_set_without_such_a_list_is_skipped(place):
    notes = evaluate('voc20', 'voc20b', '--vocabularies', 'maftp')['notes']
    assert notes[-1] == 'Skipped: PAS-20b: maftp has no class list for it'


def catseg(place: Path) -> None:
    (place / 'tiny.py').write_text(CATSEG.format(root=ROOT))


def no_maps(place: Path) -> None:
    next(place.glob('data/ade/*/ade20k_panoptic_val/*01.png')).unlink()


@pytest.mark.parametrize(
    ('spoil', 'options', 'message'),
    [
        (catseg, ['ade150-panoptic', 'voc20'], 'ade150-panoptic counts segments and needs a head'),
        (None, ['ade150-panoptic', '--tta'], '--tta needs tta_model'),
        (None, ['voc20b', '--vocabularies', 'maftp'], 'PAS-20b: maftp has no class list for it'),
        (None, ['voc20', 'ade150-panoptic', '--out', 'maps'], '--out saves label maps, and segm'),
        (no_maps, ['ade150-panoptic'], 'A-150 panoptic: 1 of 2 label maps are missing'),
    ],
)
def test_bad_input_ends_with_one_error_before_any_work(place, capsys, spoil, options, message):
    if spoil is not None:
        spoil(place)
    with pytest.raises(SystemExit) as stopped:
        evaluate(*options)
    assert stopped.value.code == 2
    assert message in capsys.readouterr().err
    assert not Path('work_dirs').exists()


@pytest.mark.parametrize('model', [{}, dict(decode_head=[dict(type='FCNHead')])])
def test_models_of_another_build_are_refused_for_segments_only(model):
    check_finds_masks([BENCHMARKS['voc20']], model)
    with pytest.raises(ValueError, match='needs a head that finds masks'):
        check_finds_masks([*PANOPTIC_BENCHMARKS.values()], model)


def test_averaged_views_have_no_segments(place, capsys):
    config = MAFTP + "tta_model = dict(type='OpenVocabTTAModel')\ntta_pipeline = []\n"
    Path('tiny.py').write_text(config.format(root=ROOT))
    with pytest.raises(SystemExit):
        evaluate('ade150-panoptic', '--tta')
    assert (
        '--tta averages and --out saves label maps, and segments are none'
        in capsys.readouterr().err
    )


def test_class_lists_are_for_benchmarks(place, capsys):
    (place / 'tests').symlink_to(ROOT / 'tests')
    with pytest.raises(SystemExit) as stopped:
        tool('test').main(['tiny.py', 'tiny.pth', '--vocabularies', 'maftp'])
    assert stopped.value.code == 2
    assert '--vocabularies is for --benchmarks' in capsys.readouterr().err


def test_a_training_without_segments_stops_before_it_begins(place, capsys):
    catseg(place)
    with pytest.raises(SystemExit) as stopped:
        tool('train').main(['tiny.py', '--cfg-options', 'val_benchmarks=ade150-panoptic'])
    assert stopped.value.code == 2
    assert 'model.decode_head.type is CATSegHead' in capsys.readouterr().err
    assert not Path('work_dirs').exists()
