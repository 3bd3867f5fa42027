"""configs/CLIPS.md: its table has all models of open_clip, and says what the package does."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import open_clip
import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / 'configs/CLIPS.md').read_text(encoding='utf-8')
KINDS = (  # a model of each kind, and of each kind that is refused
    *(
        'ViT-B-16',
        'EVA02-B-16',
        'ViT-B-16-SigLIP2',
        'PE-Core-T-16-384',
        'ViTamin-S',
        'ViT-L-14-CLIPA',
    ),
    *(
        'MobileCLIP-B',
        'convnext_tiny',
        'RN50',
        'coca_ViT-B-32',
        'roberta-ViT-B-32',
        'MobileCLIP-S1',
    ),
)


@pytest.fixture(scope='module')
def tool():
    spec = importlib.util.spec_from_file_location('list_clips', ROOT / 'tools/list_clips.py')
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    if f'open_clip {open_clip.__version__} work' not in PAGE:
        pytest.skip(f'the table is not of open_clip {open_clip.__version__}')
    return module


def table(tool) -> str:
    return PAGE.partition(tool.BEGIN)[2].partition(tool.END)[0].strip()


def test_all_models_are_in_it(tool):
    first_cells = [line.split(' | ')[0].removeprefix('| ') for line in table(tool).splitlines()]
    listed = [cell for cell in first_cells if cell in open_clip.list_models()]
    assert sorted(listed) == sorted(open_clip.list_models())
    works, refused = table(tool).split('are refused:')
    count = sum(f'\n| {name} |' in works for name in open_clip.list_models())
    assert works.startswith(f'{count} of the {len(listed)} models') and count > 100
    for name in ('EVA02-L-14-336', 'ViT-SO400M-16-SigLIP2-512', 'ViT-B-16-SigLIP-i18n-256'):
        assert f'| {name} |' in works and f'| {name} |' not in refused


@pytest.mark.parametrize('name', KINDS)
def test_a_model_of_each_kind(tool, name):
    clip = tool.look_at(name)
    row = (clip.name, clip.refused) if clip.refused else clip[: len(tool.COLUMNS)]
    assert f'| {" | ".join(map(str, row))} |' in table(tool).splitlines()


@pytest.mark.slow
def test_the_whole_table(tool, tmp_path):
    page = tmp_path / 'CLIPS.md'
    page.write_text(f'before\n{tool.BEGIN}\nold\n{tool.END}\nafter\n')
    tool.main([str(page)])
    text = page.read_text()
    assert text.startswith('before\n') and text.endswith('\nafter\n')
    assert text.partition(tool.BEGIN)[2].partition(tool.END)[0].strip() == table(tool)
