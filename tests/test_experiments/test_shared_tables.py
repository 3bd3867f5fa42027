from __future__ import annotations

import math

import pandas as pd

from infoclip_mmseg.experiments.tables import GAP, format_number, markdown_table, write_csv

TABLE = pd.DataFrame([['a|b', 1, 0.123456], ['c', 2, None]], columns=['run', 'n', ''])


def test_numbers():
    assert format_number(1.255, '.1f') == '1.3'
    assert format_number(math.nan, '.1f') == format_number(None, '') == GAP


def test_markdown():
    assert markdown_table(TABLE).splitlines() == [
        *('| run | n |  |', '| --- | --- | --- |', '| a\\|b | 1 | 0.1235 |', f'| c | 2 | {GAP} |')
    ]
    assert '| 0.12 |' in markdown_table(TABLE, '.2f')
    assert len(markdown_table(TABLE[:0]).splitlines()) == 2


def test_csv(tmp_path):
    write_csv(TABLE, tmp_path / 'a.csv')
    assert (tmp_path / 'a.csv').read_bytes() == b'run,n,\r\na|b,1,0.123456\r\nc,2,\r\n'
