"""tools/encode_vocabulary.py: what it writes is what the model reads."""

from __future__ import annotations

import importlib.util

import pytest
import torch
from mmengine.config import Config
from mmseg.registry import MODELS


@pytest.fixture(scope='module')
def tool(request):
    path = f'{request.config.rootpath}/tools/encode_vocabulary.py'
    spec = importlib.util.spec_from_file_location('encode_vocabulary', path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def inputs(tmp_path, toy_cfg, toy, monkeypatch):
    """Config, checkpoint and names as files in the working directory."""
    monkeypatch.chdir(tmp_path)
    Config(dict(model=toy_cfg())).dump('config.py')
    torch.save(dict(state_dict=toy(seed=3).state_dict()), 'checkpoint.pth')
    (tmp_path / 'names.txt').write_text('cat\ndog, hound\ntree\n')
    return ['config.py', 'checkpoint.pth', 'names.txt', 'cache']


@pytest.mark.parametrize('amp', [False, True])
def test_the_model_reads_what_the_tool_wrote(tool, inputs, tmp_path, capsys, amp):
    tool.main([*inputs, '--device', 'cpu', *(['--amp'] if amp else [])])
    assert '3 classes, 32 channels' in capsys.readouterr().out
    cfg = Config.fromfile('config.py').model
    cfg.backbone.text_cache_dir = 'cache'
    model = MODELS.build(cfg).eval()
    model.load_state_dict(torch.load('checkpoint.pth')['state_dict'])
    model.set_vocabulary(['cat', 'dog, hound', 'tree'])
    model.backbone.text_encoder.encode = None
    with torch.no_grad(), torch.autocast('cpu', dtype=torch.bfloat16, enabled=amp):
        assert model.backbone.embed_prompts(model.prompts).shape == (3, 1, 32)
    assert len(list((tmp_path / 'cache').iterdir())) == 1


@pytest.mark.parametrize(
    ('index', 'value', 'message'),
    [
        (0, 'none.py', "config 'none.py' is neither a file"),
        (1, 'none.pth', "checkpoint 'none.pth' does not exist"),
        (2, 'none.txt', "vocabulary file 'none.txt' does not exist"),
        (1, 'other.pth', 'checkpoint'),
    ],
)
def test_bad_input_is_one_line(tool, inputs, capsys, index, value, message):
    torch.save(dict(state_dict={'a': torch.zeros(1)}), 'other.pth')
    inputs[index] = value
    with pytest.raises(SystemExit) as stop:
        tool.main(inputs)
    error = capsys.readouterr().err
    assert stop.value.code == 2 and len(error.strip().splitlines()) == 1
    assert message in error
