"""Folders of save_pretrained: what goes in comes out, and nothing else is built, read or run."""

from __future__ import annotations

import json
from pathlib import Path

import huggingface_hub
import numpy as np
import pytest
import torch
import yaml
from huggingface_hub.errors import HFValidationError
from mmengine.config import Config
from mmseg.registry import MODELS

from infoclip_mmseg import OpenVocabInferencer
from infoclip_mmseg.apis.hub import HubError
from infoclip_mmseg.utils.checkpoint_files import CheckpointError

WORDS = ['grass', 'red striped object', 'blue plain object']


@pytest.fixture(scope='module')
def folder(inferencer, tmp_path_factory) -> Path:
    return inferencer.save_pretrained(tmp_path_factory.mktemp('hub') / 'model', WORDS)


@pytest.fixture
def changed(folder, tmp_path):
    """A copy of the folder, whose config.json is changed by a function."""

    def change(edit) -> Path:
        for file in folder.iterdir():
            (tmp_path / file.name).write_bytes(file.read_bytes())
        content = json.loads((folder / 'config.json').read_text())
        edit(content)
        (tmp_path / 'config.json').write_text(json.dumps(content))
        return tmp_path

    return change


def test_a_folder_is_the_model(inferencer, folder, world, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert {p.name for p in folder.iterdir()} == {'config.json', 'model.safetensors', 'README.md'}
    loaded = OpenVocabInferencer.from_pretrained(folder, device='cpu')
    (expected,) = inferencer(world['images'][0], WORDS, return_scores=True)
    (got,) = loaded(world['images'][0], return_scores=True)  # the words of the folder
    assert got.names == expected.names == tuple(WORDS)
    np.testing.assert_array_equal(got.scores, expected.scores)
    (other,) = loaded(world['images'][0], ['sand', 'snow'])
    assert other.names == ('sand', 'snow')
    again = loaded.save_pretrained(tmp_path / 'again')
    first, second = (json.loads((f / 'config.json').read_text()) for f in (folder, again))
    assert {**first, 'name': ''} == {**second, 'name': ''}


def test_a_trained_model_without_what_only_trains(toy_cfg, world, tmp_path):
    cfg = Config(dict(model=toy_cfg(distill=True)))
    torch.manual_seed(0)
    trained = MODELS.build(cfg.model)
    torch.save(dict(state_dict=trained.state_dict()), tmp_path / 'iter_1.pth')
    first = OpenVocabInferencer(cfg, tmp_path / 'iter_1.pth', device='cpu')
    content = json.loads((first.save_pretrained(tmp_path / 'out') / 'config.json').read_text())
    assert not {'neck', 'loss_ib', 'loss_mi', 'loss_distill'} & content['model'].keys()
    second = OpenVocabInferencer.from_pretrained(tmp_path / 'out', device='cpu')
    results = [model(world['images'][0], WORDS)[0].labels for model in (first, second)]
    np.testing.assert_array_equal(*results)
    with pytest.raises(ValueError, match='no classes: pass names'):
        second(world['images'][0])


def test_the_card_says_what_is_known(toy_cfg, tmp_path):
    from infoclip_mmseg.apis.model_card import write_card

    content = dict(
        name='infoclip_vitb16_ade847', version='1', vocabulary=WORDS, weights=dict(sha256='abc')
    )
    write_card(tmp_path / 'README.md', content)
    text = (tmp_path / 'README.md').read_text(encoding='utf-8')
    head = yaml.safe_load(text.split('---')[1])
    assert head['license'] == 'apache-2.0' and head['pipeline_tag'] == 'image-segmentation'
    assert 'mIoU 12.6 | published by others, not these weights' in text
    assert '3 names' in text and 'COCO-Stuff' in text
    write_card(tmp_path / 'README.md', {**content, 'name': 'mine', 'vocabulary': None})
    text = (tmp_path / 'README.md').read_text(encoding='utf-8')
    assert 'None is known.' in text and 'Trained on: not stated' in text


def test_other_weights_are_refused(changed):
    folder = changed(lambda content: None)
    path = folder / 'model.safetensors'
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(CheckpointError, match=r'model.safetensors has the SHA-256'):
        OpenVocabInferencer.from_pretrained(folder, device='cpu')
    path.unlink()
    with pytest.raises(FileNotFoundError, match=r'has no model.safetensors'):
        OpenVocabInferencer.from_pretrained(folder, device='cpu')


HOSTILE = {
    "model.decode_head.type is 'os.system'": lambda c: c['model']['decode_head'].update(
        type='os.system'
    ),
    r"pipeline\[0\].type is 'LazyObject'": lambda c: c['pipeline'].insert(
        0, dict(type='LazyObject')
    ),
    r"model.backbone has the keys \['_scope_'\]": lambda c: c['model']['backbone'].update(
        _scope_='mmdet'
    ),
    'model.backbone names weights of its own': lambda c: c['model']['backbone'].update(
        pretrained='/etc/passwd'
    ),
    'model.backbone.model_name is .hf-hub:a/b., which would be fetched': lambda c: c['model'][
        'backbone'
    ].update(model_name='hf-hub:a/b'),
    "model.type is 'EncoderDecoder'": lambda c: c['model'].update(type='EncoderDecoder'),
    'format_version=2, this package': lambda c: c.update(format_version=2),
    "format='other', expected 'infoclip_mmseg'": lambda c: c.update(format='other'),
    'expected .* as save_pretrained writes them': lambda c: c.update(vocabulary=[1]),
}


@pytest.mark.parametrize('message', HOSTILE)
def test_configs_from_elsewhere_build_parts_of_models_only(message, changed):
    with pytest.raises(HubError, match=message):
        OpenVocabInferencer.from_pretrained(changed(HOSTILE[message]), device='cpu')


def test_what_is_no_config(folder, tmp_path):
    with pytest.raises(FileNotFoundError, match=r'has no config.json; expected a folder'):
        OpenVocabInferencer.from_pretrained(tmp_path)
    for text, message in (('{', 'is no valid JSON'), ('[]', "format='list'"), ('', 'JSON')):
        (tmp_path / 'config.json').write_text(text)
        with pytest.raises(HubError, match=message):
            OpenVocabInferencer.from_pretrained(tmp_path)
    (tmp_path / 'config.json').write_bytes(b' ' * ((8 << 20) + 1))
    with pytest.raises(HubError, match='more than 8 MiB'):
        OpenVocabInferencer.from_pretrained(tmp_path)


def test_names_of_the_hub(folder, monkeypatch, tmp_path):
    asked = []

    def snapshot_download(name, **options):
        asked.append((name, options['revision'], sorted(options['allow_patterns'])))
        if name == 'no':
            raise HFValidationError('no such name')
        return str(folder)

    monkeypatch.setattr(huggingface_hub, 'snapshot_download', snapshot_download)
    loaded = OpenVocabInferencer.from_pretrained('a/b', revision='v1', device='cpu')
    assert loaded.classes == WORDS
    assert asked == [('a/b', 'v1', ['README.md', 'config.json', 'model.safetensors'])]
    with pytest.raises(FileNotFoundError, match="'no' is no folder .* could not be fetched"):
        OpenVocabInferencer.from_pretrained('no')


def test_upload(inferencer, monkeypatch):
    seen = {}

    class Api:
        def __init__(self, token):
            seen['token'] = token

        def create_repo(self, repo_id, private, exist_ok):
            seen['repo'] = (repo_id, private, exist_ok)

        def upload_folder(self, repo_id, folder_path):
            seen['files'] = sorted(p.name for p in Path(folder_path).iterdir())
            return f'https://huggingface.co/{repo_id}/commit/1'

    monkeypatch.setattr(huggingface_hub, 'HfApi', Api)
    address = inferencer.push_to_hub('me/world', WORDS, private=True, token='t')
    assert address.endswith('me/world/commit/1')
    assert seen['repo'] == ('me/world', True, True) and seen['token'] == 't'
    assert seen['files'] == ['README.md', 'config.json', 'model.safetensors']
