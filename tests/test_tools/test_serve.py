"""tools/serve.py as a process: it answers, refuses, and finishes what it has begun on TERM."""

from __future__ import annotations

import base64
import io
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from urllib.error import URLError
from urllib.request import Request, urlopen

import numpy as np
import pytest
from PIL import Image

from infoclip_mmseg.experiments.processes import free_port

pytest.importorskip('uvicorn')
pytest.importorskip('prometheus_client')
ROOT = Path(__file__).resolve().parents[2]


def body(count: int) -> bytes:
    content = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(noise).save(content, 'PNG')
    image = dict(type='base64', value=base64.b64encode(content.getvalue()).decode())
    prompts = [dict(text='grass'), dict(text='snow')]
    return json.dumps(dict(images=[image] * count, prompts=prompts)).encode()


def ask(address: str, data: bytes | None = None) -> dict:
    headers = {'Content-Type': 'application/json'}
    with urlopen(Request(address, data, headers), timeout=60) as answer:
        return json.load(answer)


@pytest.mark.slow
def test_serves_and_finishes_on_term(tmp_path):
    port = free_port()
    address = f'http://127.0.0.1:{port}'
    options = ['--port', str(port), '--max-batch', '1', '--device', 'cpu']
    env = {**os.environ, 'PYTHONPATH': str(ROOT)}
    with (tmp_path / 'log.txt').open('w') as log:
        command = [sys.executable, str(ROOT / 'tools/serve.py'), *options]
        server = subprocess.Popen(command, cwd=tmp_path, env=env, stdout=log, stderr=log)
    try:
        deadline = time.monotonic() + 120
        while True:
            try:
                assert ask(f'{address}/health')['status'] == 'ok'
                break
            except URLError:
                assert server.poll() is None, (tmp_path / 'log.txt').read_text()[-2000:]
                assert time.monotonic() < deadline
                time.sleep(0.2)
        answers: list[dict] = []
        asked = threading.Thread(target=lambda: answers.append(ask(f'{address}/batch', body(24))))
        asked.start()
        while not ask(f'{address}/health')['waiting'] and not answers:
            time.sleep(0.01)
        server.send_signal(signal.SIGTERM)
        asked.join(60)
        assert server.wait(60) in (0, -signal.SIGTERM)
    finally:
        server.kill()
    assert len(answers) == 1 and len(answers[0]['results']) == 24


def test_what_cannot_be_served_is_said(tmp_path):
    env = {**os.environ, 'PYTHONPATH': str(ROOT)}
    command = [sys.executable, str(ROOT / 'tools/serve.py'), '--model', 'nothing']
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True)
    assert done.returncode == 2 and 'serve.py: error: config' in done.stderr
