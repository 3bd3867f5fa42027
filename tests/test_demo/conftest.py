"""A running page and a browser to look at it."""

from __future__ import annotations

import os
import queue
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import quarter_masks

ROOT = Path(__file__).parents[2]
BROWSERS = ('chromium', 'chromium-browser', 'google-chrome', 'google-chrome-stable')
SECONDS = 240


def start(folder: Path, *options: str) -> tuple[subprocess.Popen, str]:
    """Process of tools/demo.py and its address."""
    found = filter(None, (str(ROOT / 'tests'), os.environ.get('PYTHONPATH')))  # modules of models
    surroundings = dict(PYTHONPATH=os.pathsep.join(found))
    process = subprocess.Popen(
        [sys.executable, str(ROOT / 'tools/demo.py'), '--port', '0', '--device', 'cpu', *options],
        cwd=folder,
        env={**os.environ, **surroundings, 'GRADIO_ALLOWED_PATHS': '/', 'GRADIO_SHARE': 'True'},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    lines: queue.Queue[str] = queue.Queue()
    threading.Thread(target=_forward, args=(process, lines), daemon=True).start()
    said, end = [], time.monotonic() + SECONDS
    while time.monotonic() < end:
        try:
            said.append(lines.get(timeout=1))
        except queue.Empty:
            if process.poll() is not None:
                break
            continue
        if said[-1].startswith('serving at '):
            return process, said[-1].split()[2].rstrip('/')
    process.kill()
    pytest.fail(f'tools/demo.py did not start: {"".join(said[-20:])}')


def _forward(process: subprocess.Popen, lines: queue.Queue[str]) -> None:
    assert process.stdout is not None
    for line in process.stdout:
        lines.put(line)


def serve(folder: Path, *options: str) -> Iterator[str]:
    """Address of tools/demo.py while a fixture is in use, started in an empty folder."""
    pytest.importorskip('gradio', reason='Gradio is missing: pip install -e ".[demo]"')
    process, url = start(folder, *options)
    yield url
    process.terminate()
    process.wait(30)
    assert list(folder.iterdir()) == []  # nothing is left where it was started,
    assert not list((ROOT / 'infoclip_mmseg').rglob('*.pyi'))  # nor beside the source


@pytest.fixture(scope='session')
def address(tmp_path_factory) -> Iterator[str]:
    """Address of tools/demo.py with the composed world's CLIP."""
    yield from serve(tmp_path_factory.mktemp('demo'), '--max-upload', '2')


@pytest.fixture(scope='session')
def mask_address(toy_cfg, tmp_path_factory) -> Iterator[str]:
    """Address of tools/demo.py with a model that finds the quarters of an image."""
    config = quarter_masks.write_config(toy_cfg, tmp_path_factory.mktemp('model'))
    options = ('--config', str(config), '--weights', str(config.with_suffix('.pth')))
    yield from serve(tmp_path_factory.mktemp('demo'), *options)


@pytest.fixture(scope='session')
def browser() -> Iterator:
    """Headless Chromium."""
    api = pytest.importorskip(
        'playwright.sync_api', reason='Playwright is missing: pip install playwright'
    )
    program = next(filter(None, map(shutil.which, BROWSERS)), None)
    with api.sync_playwright() as playwright:
        if program is None and not Path(playwright.chromium.executable_path).exists():
            pytest.skip('Chromium is missing: apt-get install chromium')
        chromium = playwright.chromium.launch(executable_path=program, args=['--no-sandbox'])
        yield chromium
        chromium.close()
