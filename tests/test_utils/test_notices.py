from __future__ import annotations

import subprocess
import sys
import warnings
from pathlib import Path

import pytest

from infoclip_mmseg.utils.notices import without_import_notices

ROOT = Path(__file__).parents[2]


def test_known_notices_go_and_all_else_is_passed_on(capsys):
    before = list(warnings.filters)
    with without_import_notices():
        print('Could not import OneDL')
        print('Could not import OneDL from here')
        print('first', end=' ')
        print('second\nthird', end='')
    assert capsys.readouterr().out == 'Could not import OneDL from here\nfirst second\nthird'
    assert warnings.filters == before


def test_other_warnings_are_shown():
    with pytest.warns(UserWarning, match='something else') as caught, without_import_notices():
        warnings.warn('Fail to import ``MultiScaleDeformableAttention`` from there', stacklevel=1)
        warnings.warn('something else', stacklevel=1)
    assert len(caught) == 1


def test_it_ends_with_an_error(capsys):
    with pytest.raises(ValueError), without_import_notices():
        print('half a line', end='')
        raise ValueError
    assert capsys.readouterr().out == 'half a line'


def test_importing_the_package_prints_nothing():
    result = subprocess.run(
        [sys.executable, '-c', 'import infoclip_mmseg.apis'],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert result.stdout + result.stderr == ''
