"""--cfg-options: mmengine's values, but with their spaces."""

from __future__ import annotations

import argparse
import re
from pathlib import Path

import pytest
from mmengine.config import DictAction

from infoclip_mmseg.engine.cfg_options import CfgOptions, parse_value

TOOLS = Path(__file__).resolve().parents[2] / 'tools'
AS_MMENGINE = [
    *('1', '-2.5', '1e-3', 'true', 'False', 'None', 'none', 'a', '', '1,2,3', 'a,b', '[a, b, c]'),
    *('(1,2)', '[(1, 2, 3), [a, b], c]', '[]', '()', '[1]', 'a,', '"1"', "'abc'", 'path/to.pth'),
    *('[(640,640),(384,384)]', '{a}', 'x=y', '"[1, 2]"', '(True, None)', '[[1],[2]]'),
]


@pytest.mark.parametrize('text', AS_MMENGINE)
def test_values_without_spaces_are_mmengines(text):
    assert parse_value(text) == DictAction._parse_iterable(text)
    assert type(parse_value(text)) is type(DictAction._parse_iterable(text))


@pytest.mark.parametrize(
    ('text', 'value'),
    [
        ('a picture of {}', 'a picture of {}'),
        ('/data/my images/a', '/data/my images/a'),
        ('[a photo of a {}, a drawing of a {}]', ['a photo of a {}', 'a drawing of a {}']),
        ('a {} here, a {} there', ['a {} here', 'a {} there']),
        ("'a {}, indoors'", 'a {}, indoors'),
        ("['a {}, indoors', b]", ['a {}, indoors', 'b']),
        ('"an {} (old one)"', 'an {} (old one)'),
        ('a {} :)', 'a {} :)'),
        ('[my data] set', '[my data] set'),
        (' padded ', 'padded'),
        ("it's a {}", "it's a {}"),
        ('(a b, (1, 2))', ('a b', (1, 2))),
    ],
)
def test_spaces_stay(text, value):
    assert parse_value(text) == value


def test_brackets_that_do_not_match_are_refused():
    with pytest.raises(ValueError, match='do not match'):
        parse_value('(1, [2), 3')


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser()
    parser.add_argument('--cfg-options', nargs='+', action=CfgOptions)
    return parser


def test_on_a_command_line(capsys):
    args = parser().parse_args(['--cfg-options', 'a.b=a picture of {}', 'c=1,2', 'd=x=y z'])
    assert args.cfg_options == {'a.b': 'a picture of {}', 'c': [1, 2], 'd': 'x=y z'}
    with pytest.raises(SystemExit):
        parser().parse_args(['--cfg-options', 'a.b=a', 'picture'])
    assert "takes KEY=VALUE, got 'picture'; quote what has spaces" in capsys.readouterr().err


def test_every_tool_takes_its_options_so():
    texts = {path.name: path.read_text() for path in TOOLS.glob('*.py')}
    assert not [name for name, text in texts.items() if 'DictAction' in text]
    with_options = [name for name, text in texts.items() if re.search(r"'--cfg-options'", text)]
    assert len(with_options) >= 6
    assert all('action=CfgOptions' in texts[name] for name in with_options)
