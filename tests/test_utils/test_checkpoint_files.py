"""Checkpoints are read without running them, by both ways of reading, and must fit the model."""

from __future__ import annotations

import os
import pickle
import tarfile
import zipfile

import numpy as np
import pytest
import torch
from mmengine.logging import HistoryBuffer
from mmengine.runner import CheckpointLoader
from safetensors.torch import save_file
from torch import nn

from infoclip_mmseg.engine.hooks.guards import CheckpointMatchHook
from infoclip_mmseg.utils import checkpoint_files as module
from infoclip_mmseg.utils.checkpoint_files import (
    CheckpointError,
    check_state_dict,
    install_safe_loader,
    load_checkpoint_file,
)

WAYS = ['restricted', 'weights_only'] if module._HAS_SAFE_LOAD else ['restricted']


@pytest.fixture(params=WAYS, autouse=True)
def way(request, monkeypatch):
    """Both ways of reading, on a torch that has both."""
    monkeypatch.setattr(module, '_HAS_SAFE_LOAD', request.param == 'weights_only')
    return request.param


class Malicious:
    """Makes a folder when it is unpickled by an ordinary unpickler."""

    def __init__(self, path) -> None:
        self.path = str(path)

    def __reduce__(self):
        return os.mkdir, (self.path,)


class AsksForAttribute:
    """Names a method by `getattr`, which a pickled HistoryBuffer does as well."""

    def __init__(self, owner, name) -> None:
        self.arguments = (owner, name)

    def __reduce__(self):
        return getattr, self.arguments


def rewrite_zip(source, target, old: bytes, new: bytes) -> None:
    """Copy a checkpoint with other names in its pickle."""
    with zipfile.ZipFile(source) as read, zipfile.ZipFile(target, 'w') as write:
        assert any(old in read.read(name) for name in read.namelist())
        for name in read.namelist():
            write.writestr(name, read.read(name).replace(old, new))


def mmengine_checkpoint() -> dict:
    """What MMEngine's runner stores, in small."""
    buffer = HistoryBuffer([1.0, 2.5], [1, 1])
    optimizer = torch.optim.AdamW(nn.Linear(2, 2).parameters())
    return dict(
        meta=dict(
            iter=3,
            seed=0,
            config='raise SystemExit("run on resume")',
            dataset_meta=dict(classes=('a', 'b'), palette=[[1, 2, 3]], label_map=None),
        ),
        state_dict=nn.Linear(2, 2).state_dict(),
        message_hub=dict(
            log_scalars={'train/loss': buffer},
            runtime_info=dict(best_score=np.float64(0.5), eta=np.float32(1), best=np.bool_(True)),
            resumed_keys={'train/loss': True},
        ),
        optimizer=optimizer.state_dict(),
        param_schedulers=[dict(last_step=3, base_values=[0.1])],
        labels=np.arange(4, dtype=np.int32),
        halves=torch.ones(2, dtype=torch.bfloat16),
        parameter=nn.Parameter(torch.ones(2)),
        dtype=torch.float16,
        blob=b'\x00\xff',
    )


@pytest.mark.parametrize('zipped', [True, False])
def test_an_mmengine_checkpoint_comes_back_whole(tmp_path, zipped):
    stored = mmengine_checkpoint()
    path = tmp_path / 'a.pth'
    torch.save(stored, path, _use_new_zipfile_serialization=zipped)
    loaded = load_checkpoint_file(path)
    assert loaded.keys() == stored.keys()
    for key, value in stored['state_dict'].items():
        torch.testing.assert_close(loaded['state_dict'][key], value)
    buffer = loaded['message_hub']['log_scalars']['train/loss']
    assert (buffer.mean(), buffer.max(), buffer.current()) == (1.75, 2.5, 2.5)
    assert loaded['message_hub']['runtime_info'] == stored['message_hub']['runtime_info']
    assert loaded['meta']['dataset_meta'] == stored['meta']['dataset_meta']
    assert loaded['labels'].tolist() == [0, 1, 2, 3]
    assert loaded['labels'].dtype == np.int32
    assert loaded['dtype'] == torch.float16
    assert loaded['blob'] == stored['blob']


def test_a_config_that_resume_would_execute_is_left_out(tmp_path):
    torch.save(mmengine_checkpoint(), tmp_path / 'a.pth')
    meta = load_checkpoint_file(tmp_path / 'a.pth')['meta']
    assert 'config' not in meta
    assert meta['iter'] == 3


@pytest.mark.parametrize('protocol', [2, 4])
@pytest.mark.parametrize('writer', ['zip', 'legacy', 'pickle'])
def test_code_in_a_checkpoint_is_refused_and_not_run(tmp_path, writer, protocol):
    target, path = tmp_path / 'made', tmp_path / 'a.pth'
    stored = {'state_dict': {'weight': torch.ones(1)}, 'extra': Malicious(target)}
    if writer == 'pickle':
        path.write_bytes(pickle.dumps(stored['extra'], protocol=protocol))
    else:
        torch.save(
            stored,
            path,
            pickle_protocol=protocol,
            _use_new_zipfile_serialization=writer == 'zip',
        )
    with pytest.raises(CheckpointError, match='Nothing of it was run'):
        load_checkpoint_file(path)
    assert not target.exists()


def test_the_refusal_names_what_the_file_refers_to(tmp_path):
    torch.save({'a': Malicious(tmp_path / 'made')}, tmp_path / 'a.pth')
    with pytest.raises(CheckpointError, match=r"a\.pth' refers to \w+\.mkdir"):
        load_checkpoint_file(tmp_path / 'a.pth')


@pytest.mark.parametrize(
    ('owner', 'name'), [(HistoryBuffer, '__init__'), (HistoryBuffer, '__class__'), (dict, 'get')]
)
def test_getattr_reaches_nothing_but_the_four_statistics(tmp_path, owner, name):
    torch.save({'a': AsksForAttribute(owner, name)}, tmp_path / 'a.pth')
    with pytest.raises(CheckpointError):
        load_checkpoint_file(tmp_path / 'a.pth')


@pytest.mark.parametrize('content', [b'', b'hello', b'PK\x03\x04 no archive'])
def test_what_is_no_checkpoint_is_said_to_be_damaged(tmp_path, content):
    (tmp_path / 'a.pth').write_bytes(content)
    with pytest.raises(CheckpointError, match=f'{len(content)} bytes.* damaged or not a checkp'):
        load_checkpoint_file(tmp_path / 'a.pth')


@pytest.mark.parametrize('share', [0.1, 0.5, 0.99])
@pytest.mark.parametrize('suffix', ['.pth', '.safetensors'])
def test_a_truncated_file_is_said_to_be_damaged(tmp_path, share, suffix):
    path = tmp_path / f'a{suffix}'
    save = save_file if suffix == '.safetensors' else torch.save
    save({'weight': torch.ones(1000)}, path)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(CheckpointError, match='damaged'):
        load_checkpoint_file(path)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nothing\.pth' does not exist"):
        load_checkpoint_file(tmp_path / 'nothing.pth')


def test_other_content_is_refused(tmp_path):
    torch.save([torch.ones(1)], tmp_path / 'list.pth')
    with pytest.raises(CheckpointError, match='holds a list'):
        load_checkpoint_file(tmp_path / 'list.pth')
    torch.jit.save(torch.jit.script(nn.Linear(1, 1)), str(tmp_path / 'script.pth'))
    with pytest.raises(CheckpointError, match='TorchScript'):
        load_checkpoint_file(tmp_path / 'script.pth')
    with tarfile.open(tmp_path / 'tar.pth', 'w') as archive:
        archive.add(tmp_path / 'list.pth', 'pickle')
    with pytest.raises(CheckpointError, match='tar archive'):
        load_checkpoint_file(tmp_path / 'tar.pth')


def test_safetensors_come_as_state_dict(tmp_path):
    path = tmp_path / 'a.safetensors'
    save_file({'weight': torch.arange(3.0)}, path, metadata={'note': 'x'})
    loaded = load_checkpoint_file(path)
    assert loaded['meta'] == {'note': 'x'}
    torch.testing.assert_close(loaded['state_dict']['weight'], torch.arange(3.0))


def test_the_loader_serves_mmengine_once_installed(tmp_path, monkeypatch):
    monkeypatch.setattr(CheckpointLoader, '_schemes', dict(CheckpointLoader._schemes))
    target, path = tmp_path / 'made', tmp_path / 'a.pth'
    torch.save({'state_dict': {}, 'extra': Malicious(target)}, path)
    install_safe_loader()
    with pytest.raises(CheckpointError):
        CheckpointLoader.load_checkpoint(str(path), map_location='cpu')
    assert not target.exists()


def test_weights_of_the_same_architecture_fit():
    model = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 1))
    state = model.state_dict()
    check_state_dict(model, state)
    check_state_dict(model, {f'module.{key}': value for key, value in state.items()})
    check_state_dict(model, {**state, 'unused': torch.ones(1)})


def test_weights_of_another_architecture_are_refused():
    model = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 1))
    state = model.state_dict()
    other = nn.Sequential(nn.Linear(2, 4), nn.Linear(4, 1)).state_dict()
    with pytest.raises(CheckpointError, match=r'0\.weight is \(4, 2\) and should be \(3, 2\)'):
        check_state_dict(model, other, complete=False)
    with pytest.raises(CheckpointError, match='4 are missing'):
        check_state_dict(model, {'other.weight': torch.ones(1)}, complete=False)
    part = {key: value for key, value in state.items() if not key.startswith('1.')}
    with pytest.raises(CheckpointError, match=r"2 are missing \['1.weight', '1.bias'\]"):
        check_state_dict(model, part)
    check_state_dict(model, part, optional=('1.',))
    check_state_dict(model, part, complete=False)


def test_the_hook_checks_before_the_weights_are_loaded():
    class Runner:
        model = nn.Linear(2, 2)

    hook = CheckpointMatchHook()
    hook.after_load_checkpoint(Runner, {'state_dict': nn.Linear(2, 2).state_dict()})
    hook.after_load_checkpoint(Runner, nn.Linear(2, 2).state_dict())
    with pytest.raises(CheckpointError):
        hook.after_load_checkpoint(Runner, {'state_dict': nn.Linear(2, 3).state_dict()})


def test_numpy_1_and_2_read_each_others_checkpoints(tmp_path):
    path = tmp_path / 'a.pth'
    torch.save({'score': np.float64(0.25), 'values': np.ones(2)}, path)
    other = tmp_path / 'other.pth'
    here, there = b'numpy._core.multiarray', b'numpy.core.multiarray'
    if np.__version__.startswith('1.'):
        here, there = there, here
    rewrite_zip(path, other, here, there)
    loaded = load_checkpoint_file(other)
    assert loaded['score'] == 0.25
    assert loaded['values'].tolist() == [1.0, 1.0]
