from __future__ import annotations

import io
import logging
import sys
import warnings

import pytest
from mmengine.logging import MMLogger
from rich.console import Console

from infoclip_mmseg.engine.display import ProgressHook, logs_to_file, make_progress


def test_only_the_console_reaches_the_terminal(tmp_path, capsys):
    path = tmp_path / 'folder' / 'run.log'
    with logs_to_file(path) as console:
        logger = MMLogger.get_instance(f'display-{tmp_path.name}')
        logger.setLevel(logging.INFO)
        console.print('for a person')
        print('for the file')
        print('an error', file=sys.stderr)
        logger.info('a step')
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ('for a person\n', '')
    text = path.read_text(encoding='utf-8')
    assert all(part in text for part in ('for the file', 'an error', 'a step'))
    # The file is closed, and the logger speaks to the terminal.
    stream = next(h.stream for h in logger.handlers if hasattr(h, 'stream'))
    assert not stream.closed
    warnings.warn('after it', UserWarning, stacklevel=1)


def test_verbose_leaves_everything_on_the_terminal(tmp_path, capsys):
    with logs_to_file(tmp_path / 'run.log', verbose=True):
        print('a log')
    assert capsys.readouterr().out == 'a log\n'
    assert not (tmp_path / 'run.log').exists()


def test_an_error_names_the_file(tmp_path, capsys):
    with pytest.raises(ValueError), logs_to_file(tmp_path / 'run.log'):
        raise ValueError('no')
    assert str(tmp_path / 'run.log') in capsys.readouterr().out


def test_the_hook_shows_training_and_test(make_runner, toy_cfg):
    runner = make_runner(toy_cfg(), max_iters=3)
    output = io.StringIO()
    with make_progress(Console(file=output, width=100)) as progress:
        runner.register_hook(ProgressHook(progress, 'toy'))
        runner.train()
        runner.test()
    training, test = output.getvalue().splitlines()
    assert training.startswith('toy: training') and ' 3/3 ' in training
    assert test.startswith('toy: test, batches') and ' 3/3 ' in test
