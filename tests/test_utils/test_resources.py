from __future__ import annotations

from pathlib import Path

import pytest

from infoclip_mmseg.utils import resources as module
from infoclip_mmseg.utils.resources import find_config, find_file, resources

ROOT = Path(__file__).resolve().parents[2]


def test_configs_by_name_and_by_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ('infoclip_vitb16_coco-stuff', 'configs/infoclip_vitb16_coco-stuff.py'):
        assert find_config(name) == ROOT / 'configs/infoclip_vitb16_coco-stuff.py'
    for name in ('zero_shot', 'world/zero_shot', ROOT / 'configs/world/zero_shot.py'):
        assert find_config(name) == ROOT / 'configs/world/zero_shot.py'
    (tmp_path / 'mine.py').write_text('')
    assert find_config('mine.py').name == 'mine.py'


def test_unknown_configs():
    with pytest.raises(FileNotFoundError, match='did you mean infoclip_vitb16_coco-stuff'):
        find_config('infoclip_vitb16_cocostuff')
    with pytest.raises(FileNotFoundError, match='is neither a file'):
        find_config('_base_/default_runtime')


def test_files_from_any_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    name = 'data/clip/composed_world.safetensors'
    assert find_file(name) == ROOT / name
    Path(name).parent.mkdir(parents=True)
    Path(name).write_bytes(b'mine')
    assert find_file(name) == Path(name)
    assert find_file('data/none.txt') == Path('data/none.txt')


def test_an_installed_package_has_its_own_folder(tmp_path, monkeypatch):
    assert resources() == ROOT
    package = tmp_path / 'infoclip_mmseg'
    monkeypatch.setattr(module, '__file__', str(package / 'utils/resources.py'))
    (package / '.mim/configs').mkdir(parents=True)
    assert resources() == package / '.mim'
    (package / '.mim/configs/mine.py').write_text('')
    assert find_config('mine') == package / '.mim/configs/mine.py'
    with pytest.raises(FileNotFoundError, match='is neither a file'):
        find_config('infoclip_vitb16_coco-stuff')
