"""Results on disk, and the table beside the published rows."""

from __future__ import annotations

import csv
import io
import json

import pytest
from miniatures import SIX

from infoclip_mmseg.datasets.benchmarks import BENCHMARKS
from infoclip_mmseg.evaluation.benchmarks import table
from infoclip_mmseg.evaluation.benchmarks.run import hash_listing, load_result, save_result
from infoclip_mmseg.evaluation.benchmarks.table import (
    PUBLISHED,
    make_notes,
    make_rows,
    make_tables,
    published_rows,
    to_markdown,
)

RESULTS = dict(
    ade150=dict(figures=dict(mIoU=30.123, mIoU_present=31.5), images=2000),
    voc20=dict(figures=dict(mIoU=90.0, mIoU_present=90.0), images=3),
)


def test_fingerprints(tmp_path):
    (tmp_path / 'a').write_bytes(b'abc')
    (tmp_path / 'sub').mkdir()
    (tmp_path / 'sub/a').write_bytes(b'xyz')
    assert hash_listing([tmp_path / 'a']) == hash_listing([tmp_path / 'sub/a'])
    (tmp_path / 'a').write_bytes(b'abcd')
    assert hash_listing([tmp_path / 'a']) != hash_listing([tmp_path / 'sub/a'])


def test_a_result_is_found_by_its_fingerprint_only(tmp_path):
    result = dict(key='voc20', fingerprint='a' * 64, figures=dict(mIoU=1.0))
    path = save_result(tmp_path / 'new', result)
    assert load_result(tmp_path / 'new', 'voc20', 'a' * 64) == result
    assert load_result(tmp_path / 'new', 'voc20', 'b' * 64) is None
    assert load_result(tmp_path / 'new', 'voc20', 'a' * 12 + 'b' * 52) is None
    path.write_text(path.read_text()[:20])
    assert load_result(tmp_path / 'new', 'voc20', 'a' * 64) is None


def test_nothing_half_written_is_left(tmp_path, monkeypatch):
    result = dict(key='voc20', fingerprint='a' * 64, figures=dict(mIoU=1.0))
    path = save_result(tmp_path, result)
    whole = path.read_text()

    def fail(*_):
        raise OSError('no space left on device')

    monkeypatch.setattr('os.replace', fail)
    with pytest.raises(OSError, match='no space left'):
        save_result(tmp_path, dict(result, figures=dict(mIoU=2.0)))
    assert [p.name for p in tmp_path.iterdir()] == [path.name]
    assert path.read_text() == whole


def test_published_rows_are_those_of_the_backbone():
    assert len(PUBLISHED) == 7
    rows = published_rows('ViT-L-14-336-quickgelu')
    assert [row.method for row in rows] == ['CAT-Seg ViT-L/14', 'InfoCLIP ViT-L/14']
    assert rows[1].values == dict(
        ade847=16.6, pc459=24.6, ade150=38.5, pc59=63.5, voc20=97.5, voc20b=83.1
    )
    assert published_rows('ViT-B-16-quickgelu')[0].values['ade847'] == 12.0
    assert published_rows('ViT-B-32') == published_rows(dict(embed_dim=64)) == []


def test_table_as_markdown(monkeypatch):
    monkeypatch.setattr(table, 'BENCHMARKS', {key: BENCHMARKS[key] for key in SIX})
    rows = [*make_rows('run', RESULTS), *published_rows('ViT-B-16')]
    lines = to_markdown(rows, RESULTS).splitlines()
    assert lines[0] == '| mIoU | A-847 | PC-459 | A-150 | PC-59 | PAS-20 | PAS-20b |'
    assert lines[2] == '| run (absent classes left out) | – | – | 31.50 | – | 90.00* | – |'
    assert lines[3] == '| run (absent classes count 0) | – | – | 30.12 | – | 90.00* | – |'
    assert lines[5].startswith('| InfoCLIP ViT-B/16 (published) | 12.6 | 19.5 | 32.1 | 58.1 |')
    assert make_notes(RESULTS, ['PC-59 not found: nothing']) == [
        '* PAS-20: 3 images, the published evaluation has 1449.',
        'Skipped: PC-59 not found: nothing',
    ]


def test_published_rows_of_convnext_lack_what_was_not_evaluated():
    rows = published_rows('convnext_large_d_320')
    assert [row.method for row in rows] == ['MAFT+ ConvNeXt-L', 'FC-CLIP ConvNeXt-L']
    assert rows[0].values == dict(ade847=15.1, pc459=21.6, ade150=36.1, pc59=59.4, voc20=96.5)
    assert [row.values['ade847'] for row in published_rows('convnext_base_w_320')] == [13.8]
    last = to_markdown(rows, {}).splitlines()[-1]
    assert last == '| FC-CLIP ConvNeXt-L (published) | 14.8 | 18.2 | 34.1 | 58.4 | 95.4 | – |'


SEGMENTS = {
    'ade150-panoptic': dict(
        figures=dict(PQ=20.0, SQ=70.125, RQ=25.0, PQ_things=10.0, RQ_stuff=1.0), images=3
    )
}


def test_table_of_segments():
    """A table of its own, with what was published; mIoU only where it was measured."""
    tables = make_tables('run', 'convnext_large_d_320', SEGMENTS, [])
    lines = tables['table1.md'].splitlines()
    groups = ('', ' things', ' stuff')
    titles = [f'{figure}{group}' for group in groups for figure in ('PQ', 'SQ', 'RQ')]
    assert lines[0] == f'| A-150 panoptic | {" | ".join(titles)} |'
    assert lines[2] == '| run | 20.00* | 70.12* | 25.00* | 10.00* | – | – | – | – | 1.00* |'
    assert lines[3] == f'| MAFT+ ConvNeXt-L (published) | 27.1 | 73.5 | 32.9 {"| – " * 6}|'
    assert lines[4].startswith('| FC-CLIP ConvNeXt-L (published) | 26.8 | – |')
    assert lines[-1] == '* A-150 panoptic: 3 images, the published evaluation has 2000.'
    assert 'mIoU' not in tables['table1.md']
    row = next(csv.DictReader(io.StringIO(tables['table1.csv'])))
    assert row['ade150-panoptic/SQ'] == '70.125' and row['ade150'] == ''

    both = make_tables('run', 'convnext_large_d_320', {**RESULTS, **SEGMENTS}, ['x'])
    assert both['table1.md'].startswith('| mIoU | A-847 |')
    assert '| run (absent classes left out) | – | – | 31.50 |' in both['table1.md']
    assert '\n\n| A-150 panoptic | PQ |' in both['table1.md']
    assert [row['method'] for row in json.loads(both['table1.json'])['table']].count('run') == 3


def test_table_as_csv_and_json():
    tables = make_tables('run', 'ViT-B-16', RESULTS, ['PC-59 not found'])
    lines = list(csv.DictReader(io.StringIO(tables['table1.csv'])))
    assert [row['published'] for row in lines] == ['False', 'False', 'True', 'True']
    assert lines[0]['ade150'] == '31.5' and lines[0]['pc59'] == ''
    data = json.loads(tables['table1.json'])
    assert data['table'][1]['values'] == dict(ade150=30.123, voc20=90.0)
    assert (
        data['results']['voc20']['images'] == 3 and data['notes'][-1] == 'Skipped: PC-59 not found'
    )
