"""The rooms of the package keep their size, and imports between them run one way."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / 'infoclip_mmseg'
MODULES = sorted(PACKAGE.rglob('*.py'))

# From the ground up. A room may import from its own and from lower lines; rooms of one line only
# from those left of them.
ORDER = """
version
utils
losses
models.normalisation
models.text models.layers models.backbones models.necks models.proposals
models.decode_heads models.views models.distillation
models.data_preprocessor models.segmentors
models
world
datasets
evaluation
engine visualization annotations
apis
deploy demo experiments integrations service
"""
MAX_FILES, MAX_LINES, MAX_FUNCTION = 14, 320, 50
# 17,831 when the rooms were made. Since then came guards against forgetting, the mask family, FISA,
# annotations, model folders, the service and integrations.
MAX_PACKAGE = 28_000


def rooms() -> dict[str, tuple[int, int]]:
    """Line and column of each room of :data:`ORDER`."""
    lines = [line.split() for line in ORDER.split('\n') if line]
    return {room: (y, x) for y, line in enumerate(lines) for x, room in enumerate(line)}


def room_of(module: str) -> str:
    """The room of a module's name below the package: 'models.text.cache' is in 'models.text'."""
    parts = module.split('.')
    for length in range(len(parts), 0, -1):
        room = '.'.join(parts[:length])
        if room in rooms():
            return room
    raise AssertionError(f'{module} is in no room of ORDER: add its room at the right height')


def imports(path: Path) -> Iterator[tuple[int, str]]:
    """Line and name, below the package, of each module of ours that a file imports."""
    for node in ast.walk(ast.parse(path.read_text(encoding='utf-8'))):
        names: list[str] = []
        if isinstance(node, ast.ImportFrom) and node.level:
            # What measures runs beside another tree's package too, under a name of its own.
            if node.level == 1 and path.parent == PACKAGE / 'experiments' / 'timing':
                continue
            raise AssertionError(f'{path}:{node.lineno}: relative import')
        if isinstance(node, ast.ImportFrom) and node.module:
            names = [f'{node.module}.{alias.name}' for alias in node.names]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        for name in names:
            if name.startswith('infoclip_mmseg.'):
                yield node.lineno, name.removeprefix('infoclip_mmseg.')


def runs_back_up(module: str, imported: str) -> bool:
    """Whether an import goes to a higher room, or to one further right on the same line."""
    here, there = room_of(module), room_of(imported)
    return here != there and rooms()[there] > rooms()[here]


def test_imports_run_one_way():
    wrong = []
    for path in MODULES:
        module = '.'.join(path.relative_to(PACKAGE).with_suffix('').parts)
        if module == '__init__':  # the face of the package sees everything
            continue
        module = module.removesuffix('.__init__')
        for line, name in imports(path):
            if runs_back_up(module, name):
                wrong.append(f'{path.relative_to(ROOT)}:{line} imports {name}')
    assert not wrong, '\n'.join(wrong)


@pytest.mark.parametrize(
    'module, imported, back',
    [
        ('losses.task', 'utils.tensors', False),
        ('losses.task', 'losses.base', False),
        ('utils.files', 'losses.task', True),
        ('models.text.cache', 'models.backbones.vit', True),
        ('models.backbones.vit', 'models.text.cache', False),
        ('models.segmentors.open_vocab', 'datasets.vocabularies', True),
        ('engine.launch', 'apis.inferencer', True),
    ],
)
def test_the_order_itself(module, imported, back):
    assert runs_back_up(module, imported) is back


def test_rooms_keep_their_size():
    folders = [PACKAGE, *(path for path in PACKAGE.rglob('*') if path.is_dir())]
    sizes = {
        folder.relative_to(ROOT): sum(1 for path in folder.iterdir() if path.is_file())
        for folder in folders
    }
    assert {folder: size for folder, size in sizes.items() if size > MAX_FILES} == {}


def test_files_and_functions_keep_their_size():
    long, total = [], 0
    for path in MODULES:
        text = path.read_text(encoding='utf-8')
        lines = text.count('\n')
        total += lines
        if lines > MAX_LINES:
            long.append(f'{path.relative_to(ROOT)}: {lines} lines')
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                docstring = (ast.get_docstring(node) or '').count('\n') + 1
                size = (node.end_lineno or 0) - node.lineno + 1 - docstring
                if size > MAX_FUNCTION:
                    long.append(f'{path.relative_to(ROOT)}:{node.name}: {size} lines')
    assert not long, '\n'.join(long)
    assert total <= MAX_PACKAGE, f'the package has {total} lines'
