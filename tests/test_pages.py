"""The pages: README stays short, links lead somewhere, what is imported is there."""

from __future__ import annotations

import ast
import importlib
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = sorted(
    path
    for path in ROOT.rglob('*.md')
    if not any(part.startswith('.') or part in ('work_dirs', 'venv') for part in path.parts[1:])
)
MAX_README = 220


def slug(title: str) -> str:
    """The anchor that a heading gets on GitHub."""
    return re.sub(r'[^\w\- ]', '', title.strip().lower()).replace(' ', '-')


def without_code(text: str) -> str:
    return re.sub(r'```.*?```', '', text, flags=re.DOTALL)


def anchors(path: Path) -> set[str]:
    text = without_code(path.read_text(encoding='utf-8'))
    return {slug(title) for title in re.findall(r'^#+ +(.+)$', text, flags=re.MULTILINE)}


def test_the_first_page_is_short():
    lines = (ROOT / 'README.md').read_text(encoding='utf-8').splitlines()
    assert len(lines) <= MAX_README
    commands = [line for line in lines if line.startswith('pip install -r requirements.txt && ')]
    assert len(commands) == 2


@pytest.mark.parametrize('page', PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(page):
    text = without_code(page.read_text(encoding='utf-8'))
    for target in re.findall(r'(?:\]\(|src=")([^)\s"]+)', text):
        if target.startswith(('http://', 'https://')):
            continue
        name, _, anchor = target.partition('#')
        path = (page.parent / name).resolve() if name else page
        assert path.exists(), f'{page.name} links to {target}'
        if anchor:
            assert anchor in anchors(path), f'{page.name} links to {target}'


def code_of(language: str) -> list[tuple[Path, str]]:
    pattern = rf'^```{language}\n(.*?)^```'
    return [
        (page, code)
        for page in PAGES
        for code in re.findall(
            pattern, page.read_text(encoding='utf-8'), flags=re.DOTALL | re.MULTILINE
        )
    ]


def test_what_pages_import_is_there():
    count = 0
    for page, code in code_of('python'):
        for node in ast.walk(ast.parse(code)):
            if isinstance(node, ast.ImportFrom) and (node.module or '').startswith('infoclip'):
                module = importlib.import_module(node.module)
                for alias in node.names:
                    assert hasattr(module, alias.name), f'{page}: {node.module}.{alias.name}'
                    count += 1
    assert count >= 3


def test_programs_and_configs_of_commands_are_there():
    for page, code in code_of('bash'):
        for name in re.findall(r'(?<![\w/])((?:tools|configs|tests)/[\w./*-]+\.(?:py|sh))', code):
            assert list(ROOT.glob(name)), f'{page.relative_to(ROOT)}: {name}'


def test_files_that_are_named_are_there():
    named = re.compile(r'`((?:infoclip_mmseg|configs|tools|tests|data)/[\w./-]+\.(?:py|json|md))`')
    for page in PAGES:
        if page.name == 'MOVED.md':  # names what is no longer there
            continue
        for name in named.findall(page.read_text(encoding='utf-8')):
            if 'NAME' not in name:
                assert (ROOT / name).exists(), f'{page.relative_to(ROOT)}: {name}'
    package = (ROOT / 'infoclip_mmseg/README.md').read_text(encoding='utf-8')
    table = package.split('| part |')[1].split('\n## ')[0]
    for name in re.findall(r'\| `([\w/]+(?:\.py|/))` \|', table):
        assert (ROOT / 'infoclip_mmseg' / name).exists(), name


def test_pages_are_in_the_repository():
    tracked = subprocess.run(
        ['git', 'ls-files', '*.md'], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if tracked.returncode == 0 and tracked.stdout:
        assert {str(p.relative_to(ROOT)) for p in PAGES} <= set(tracked.stdout.split())
