"""Fixtures for tools/ablation.py and tools/prepare_data.py."""

from __future__ import annotations

import importlib.util
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from original_archives import COUNTS
from stand_ins import ABLATION, COMMON, CONFIG, TEST, TRAIN

from infoclip_mmseg.datasets.prepare import RECIPES, Recipe
from infoclip_mmseg.experiments import processes

PARTS = {name: recipe.parts for name, recipe in RECIPES.items()}
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def place(tmp_path, monkeypatch):
    """Folder with an ablation file, its configs and stand-ins for the programs."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'tools').mkdir()
    (tmp_path / 'tools/train.py').write_text(COMMON + TRAIN)
    (tmp_path / 'tools/test.py').write_text(COMMON + TEST)
    (tmp_path / 'base.py').write_text(CONFIG.format(row='base', slope=10))
    (tmp_path / 'ours.py').write_text(CONFIG.format(row='ours', slope=11))
    (tmp_path / 'given.pth').write_text('11.5')
    (tmp_path / 'abl.py').write_text(ABLATION)
    return tmp_path


@pytest.fixture
def ablation_tool(monkeypatch):
    """tools/ablation.py as a module."""
    monkeypatch.setattr(sys, 'path', list(sys.path))
    spec = importlib.util.spec_from_file_location('tool_ablation', ROOT / 'tools/ablation.py')
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def ablation(place, ablation_tool, monkeypatch):
    """The program with the stand-ins, as a function: ``ablation(*options)`` gives its status."""
    monkeypatch.setattr(processes, 'POLL_SECONDS', 0.05)
    monkeypatch.setattr(ablation_tool, 'TOOLS', place / 'tools')

    def run(*options: str) -> int:
        try:
            return ablation_tool.main(['abl.py', *options])
        except SystemExit as stopped:
            return stopped.code

    return run


@pytest.fixture
def program(monkeypatch):
    """The program as a function: ``program(*options)`` gives its status; sources are not real."""
    monkeypatch.setattr(sys, 'path', list(sys.path))
    spec = importlib.util.spec_from_file_location('tool_prepare', ROOT / 'tools/prepare_data.py')
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)

    def make_small(recipe: Recipe, counts: dict[str, int]) -> Recipe:
        parts = (
            part._replace(num_images=counts.get(part.key, part.num_images))
            for part in PARTS[recipe.name]
        )
        sources = (replace(one, num_bytes=None, digest=None) for one in recipe.sources)
        return replace(recipe, parts=tuple(parts), sources=tuple(sources))

    def run(*options: str, workers: int = 1, counts: dict[str, int] = COUNTS) -> int:
        for name, recipe in RECIPES.items():
            monkeypatch.setitem(RECIPES, name, make_small(recipe, counts))
        try:
            return module.main([*options, '--workers', str(workers)])
        except SystemExit as stopped:
            return stopped.code

    return run
