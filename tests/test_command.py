"""The command `infoclip`, and the wheel that it comes in."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import pytest

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib  # pytest brings it

ROOT = Path(__file__).resolve().parents[1]
MODULE = ROOT / 'tools/command/infoclip_command.py'
PROJECT = tomllib.loads((ROOT / 'pyproject.toml').read_text(encoding='utf-8'))


@pytest.fixture
def command():
    spec = importlib.util.spec_from_file_location('infoclip_command', MODULE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def run(*words: str, cwd: Path | None = None) -> subprocess.CompletedProcess:
    program = [sys.executable, str(MODULE), *words]
    env = dict(PATH='/usr/bin:/bin', PYTHONPATH=str(ROOT), PYTHONDONTWRITEBYTECODE='1')
    return subprocess.run(program, cwd=cwd, capture_output=True, text=True, env=env)


def test_every_tool_is_a_command(command):
    tools = {path.name for path in (ROOT / 'tools').glob('*.py')} - {'onnx_example.py'}
    assert set(command.COMMANDS.values()) == tools
    assert command.tools_folder() == ROOT / 'tools'
    lines = command.overview(ROOT / 'tools').splitlines()
    for name, file in command.COMMANDS.items():
        summary = command.summary(ROOT / 'tools' / file)
        assert summary and f'  {name} ' in '\n'.join(lines) and any(summary in s for s in lines)


def test_help_comes_at_once_and_mistakes_are_named():
    help_ = run('--help')
    assert help_.returncode == 0 and help_.stdout.startswith('usage: infoclip COMMAND')
    assert run().stdout == help_.stdout
    assert re.fullmatch(r'infoclip_mmseg \d+\.\d+\.\d+\n', run('--version').stdout)
    for words, hint in ((['segmnt'], 'segment'), (['convert', 'catsg'], 'convert catseg')):
        wrong = run(*words)
        assert wrong.returncode == 2 and wrong.stdout == ''
        assert f'no command {words[0]!r}; did you mean {hint}' in wrong.stderr
    source = MODULE.read_text(encoding='utf-8')
    assert not re.search(r'^(import|from) (torch|mm|infoclip_mmseg)', source, re.M)


def test_a_tool_runs_from_any_folder_and_gives_its_status(tmp_path):
    wrong = run('convert', 'catseg', cwd=tmp_path)
    assert wrong.returncode == 2
    assert 'infoclip convert catseg: error: the following arguments are required' in wrong.stderr
    photo = ROOT / 'tests/data/ade/images/validation'
    done = run('segment', str(photo), '--classes', 'sky; wall', '--out', 'out', cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-2000:]
    assert len(list((tmp_path / 'out/pred').glob('*.png'))) == len(list(photo.glob('*.jpg')))


def test_the_wheel_holds_what_programs_read():
    included = PROJECT['tool']['hatch']['build']['targets']['wheel']['force-include']
    for source, target in included.items():
        assert (ROOT / source).exists() and target.startswith('infoclip_mmseg/.mim/')
    assert PROJECT['project']['scripts'] == dict(infoclip='infoclip_command:main')
    size = sum(
        path.stat().st_size
        for folder in ('configs', 'tools', 'data/clip', 'infoclip_mmseg')
        for path in (ROOT / folder).rglob('*')
        if path.is_file()
    )
    assert size < 12e6 and (ROOT / 'data/clip/composed_world.safetensors').is_file()


def names(lines) -> dict[str, str]:
    return dict(re.match(r'([\w-]+)(.*)', line).groups() for line in lines)


def test_the_extra_is_what_requirements_install():
    lines = (ROOT / 'requirements.txt').read_text().splitlines()
    wanted = names(line for line in lines if line and not line.startswith('#'))
    extras = PROJECT['project']['optional-dependencies']
    given = names(PROJECT['project']['dependencies'])
    given.update(names(extras['mmseg'] + extras['experiments']))
    for name, bounds in wanted.items():
        if not name.startswith('pytest'):
            assert given[name] == bounds, name
