"""The page's server, asked as no browser would."""

from __future__ import annotations

import base64
import html
import importlib.util
import io
import json
import re
import struct
import sys
import threading
import uuid
import zlib
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

pytest.importorskip('gradio', reason='Gradio is missing: pip install -e ".[demo]"')
httpx = pytest.importorskip('httpx')
ROOT = Path(__file__).parents[2]
META = {'_type': 'gradio.FileData'}


class Client:
    """What the page's JavaScript does."""

    def __init__(self, address: str) -> None:
        self.http = httpx.Client(base_url=address, timeout=240, trust_env=False)
        config = self.http.get('/config').json()
        tags = {c['id']: c['props'].get('elem_id') for c in config['components']}
        self.function = next(
            d['id']
            for d in config['dependencies']
            if any(tags.get(i) == 'ic-segment' for i, _ in d['targets'])
        )

    def upload(self, content: bytes, name: str = 'photo.png') -> dict:
        answer = self.http.post('/gradio_api/upload', files=dict(files=(name, content)))
        assert answer.status_code == 200, answer.text
        return dict(path=answer.json()[0], orig_name=name, meta=META)

    def segment(self, image: dict | None, words: str, background: str = '') -> str:
        """HTML of the result, or the text of a refusal."""
        session = uuid.uuid4().hex
        body = dict(data=[image, words, background], fn_index=self.function, session_hash=session)
        joined = self.http.post('/gradio_api/queue/join', json=body)
        if joined.status_code != 200:
            return joined.text
        parameters = dict(session_hash=session)
        with self.http.stream('GET', '/gradio_api/queue/data', params=parameters) as events:
            for line in events.iter_lines():
                event = json.loads(line[5:]) if line.startswith('data:') else {}
                if event.get('msg') == 'process_completed':
                    output = event['output']
                    return output['data'][0] if event['success'] else f'failed: {output}'
        raise AssertionError('no result')


@pytest.fixture(scope='module')
def client(address):
    return Client(address)


def png(colour: tuple[int, int, int] = (40, 160, 60), size: int = 64) -> bytes:
    buffer = io.BytesIO()
    Image.new('RGB', (size, size), colour).save(buffer, 'PNG')
    return buffer.getvalue()


def bomb(width: int, height: int) -> bytes:
    """A small PNG file that says it has very many pixels."""
    parts = [(b'IHDR', struct.pack('>IIBBBBB', width, height, 1, 0, 0, 0, 0))]
    parts += [(b'IDAT', zlib.compress(bytes(1 << 20))), (b'IEND', b'')]
    chunks = (
        struct.pack('>I', len(data)) + kind + data + struct.pack('>I', zlib.crc32(kind + data))
        for kind, data in parts
    )
    return b'\x89PNG\r\n\x1a\n' + b''.join(chunks)


def names_of(page: str) -> list[str]:
    return [html.unescape(name) for name in re.findall('<b>(.*?)</b>', page)]


def test_words_change_without_stale_results(client):
    image = client.upload(png())
    pages = [client.segment(image, words) for words in ('grass; snow', 'snow; sand', 'grass; snow')]
    assert [set(names_of(page)) for page in pages] == [
        {'grass', 'snow'},
        {'snow', 'sand'},
        {'grass', 'snow'},
    ]


def test_twenty_requests_at_a_time(client, address):
    def ask(index: int) -> list[str]:
        visitor = Client(address)
        image = visitor.upload(png((12 * index, 100, 255 - 12 * index)), f'photo {index}.png')
        return names_of(visitor.segment(image, f'word {index}; thing {index}\ngrass'))

    with ThreadPoolExecutor(20) as pool:
        results = list(pool.map(ask, range(20)))
    for index, names in enumerate(results):
        assert set(names) == {f'word {index}', f'thing {index}', 'grass'}


@pytest.mark.parametrize(
    'content, name, message',
    [
        (b'', 'empty.png', 'empty.*0 bytes'),
        (b'no image at all', 'text.jpg', 'no image of a known format'),
        (png(size=200)[:300], 'cut.png', 'damaged or truncated'),
        (bomb(40_000, 40_000), 'bomb.png', 'bomb|more than the limit'),
        (bomb(9_000, 9_000), 'large.png', '9000 x 9000 pixels are more than the limit'),
        (b'<svg xmlns="http://www.w3.org/2000/svg"/>', 'drawing.svg', 'no image of a known format'),
        (png(size=3), 'tiny.png', 'less than one patch'),
    ],
    ids=['empty', 'text', 'cut', 'bomb', 'large', 'svg', 'tiny'],
)
def test_bad_images_are_said(client, content, name, message):
    page = client.segment(client.upload(content, name), 'grass')
    assert page.startswith('<div class="ic-error" role="alert">'), page[:300]
    assert re.search(message, html.unescape(page)) and name in page
    assert 'Traceback' not in page


def test_missing_input_is_said(client):
    assert 'no image yet' in client.segment(None, 'grass')
    assert 'no words yet' in client.segment(client.upload(png()), ' ;')


def test_words_of_all_kinds(client):
    image = client.upload(png())
    page = client.segment(image, '猫; 🐈; <script>alert(1)</script>\n' + 'long ' * 300)
    assert {'猫', '🐈', '<script>alert(1)</script>'} <= set(names_of(page))
    assert '<script' not in page and '77 tokens' in page


class Canary(BaseHTTPRequestHandler):
    """A server that is never to be asked."""

    asked = 0

    def do_GET(self) -> None:
        Canary.asked += 1
        self.send_response(200)
        self.end_headers()
        self.wfile.write(png())

    def log_message(self, *values: object) -> None:
        pass


def test_no_path_and_no_address_of_the_client_is_opened(client, tmp_path):
    secret = tmp_path / 'secret.png'
    secret.write_bytes(png())
    server = HTTPServer(('127.0.0.1', 0), Canary)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    canary = f'http://127.0.0.1:{server.server_port}/photo.png'
    uploaded = client.upload(png())['path']
    outside = str(Path(uploaded).parents[2] / 'scene_1.png')  # a file of the program's own
    traversal = f'{Path(uploaded).parent}/../../scene_1.png'
    for path in (str(secret), outside, traversal, 'README.md', canary, 'file:///etc/hosts', '/'):
        page = client.segment(dict(path=path, meta=META), 'grass; snow')
        assert 'ic-result' not in page, path
        assert 'Traceback' not in page and 'ic-stack' not in page
    for extra in (dict(url=canary), dict(url=f'data:image/png;base64,{"A" * 40}')):
        client.segment(dict(path=uploaded, meta=META, **extra), 'grass; snow')
    server.shutdown()
    assert Canary.asked == 0


@pytest.mark.parametrize(
    'path',
    [
        '/gradio_api/file=/etc/hosts',
        f'/gradio_api/file={ROOT}/README.md',
        '/gradio_api/file=README.md',
        '/gradio_api/file=../../../etc/hosts',
        '/gradio_api/proxy=http://127.0.0.1:1/x',
        '/gradio_api/info',
        '/gradio_api/openapi.json',
        '/gradio_api/runs',
        '/gradio_api/call/answer/1',
        '/monitoring',
        '/docs',
        '/openapi.json',
        '/gradio_api/deep_link',
        '/static/../../../../../../etc/hosts',
        '/assets/..%2f..%2f..%2f..%2f..%2fetc%2fhosts',
    ],
)
def test_closed_endpoints(client, path):
    answer = client.http.get(path)
    assert answer.status_code in (403, 404), (path, answer.status_code)
    assert 'localhost' not in answer.text and '# infoclip' not in answer.text


def test_functions_cannot_be_called_past_the_queue(client):
    for path in ('/gradio_api/run/predict', '/gradio_api/api/answer', '/gradio_api/call/answer'):
        answer = client.http.post(path, json=dict(data=[None, 'grass', ''], fn_index=0))
        assert answer.status_code == 404


def test_sizes_are_limited(client):
    large = bytes(4 << 20)
    answer = client.http.post('/gradio_api/upload', files=dict(files=('a.png', large)))
    assert answer.status_code == 413
    head = b'--x\r\ncontent-disposition: form-data; name="files"; filename="a.png"\r\n\r\n'
    chunks = iter([head, *[large[: 1 << 16]] * 64, b'\r\n--x--\r\n'])  # no Content-Length
    kind = {'content-type': 'multipart/form-data; boundary=x'}
    try:
        answer = client.http.post('/gradio_api/upload', content=chunks, headers=kind)
        assert answer.status_code == 413
    except httpx.TransportError:  # the server hangs up while the body is being sent
        pass
    words = 'x' * (3 << 20)
    answer = client.http.post('/gradio_api/queue/join', json=dict(data=[None, words, '']))
    assert answer.status_code == 413
    assert 'ic-error' in client.segment(client.upload(png()), 'x' * 150_000)


def test_other_host_names_are_refused(client):
    answer = client.http.get('/', headers=dict(host='evil.example'))
    assert answer.status_code == 400
    policy = client.http.get('/').headers['content-security-policy']
    assert "default-src 'self'" in policy


def test_page_names_no_other_server_and_no_secret(client):
    config = client.http.get('/config').text
    assert 'huggingface' not in config and str(ROOT) not in config
    assert json.loads(config)['analytics_enabled'] is False


def test_program_says_what_is_wrong(monkeypatch, capsys):
    monkeypatch.setattr(sys, 'path', list(sys.path))
    spec = importlib.util.spec_from_file_location('tool_demo', ROOT / 'tools/demo.py')
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, 'set_environment', lambda folder: None)
    server = HTTPServer(('127.0.0.1', 0), Canary)
    for options, message in (
        (('--port', '0', '--config', 'zero_shott'), 'did you mean'),
        (('--port', str(server.server_port)), 'choose another --port'),
        (('--port', '0', '--config', 'world/infoclip'), 'pass weights=CHECKPOINT'),
    ):
        with pytest.raises(SystemExit) as stopped:
            module.main(options)
        assert stopped.value.code == 2 and message in capsys.readouterr().err
    server.server_close()


def test_reading_is_exact(client):
    """A picture of one colour comes back as it was."""
    page = client.segment(client.upload(png((200, 30, 30))), 'grass')
    data = re.search('class="ic-base" src="data:image/jpeg;base64,([^"]*)"', page).group(1)
    image = np.asarray(Image.open(io.BytesIO(base64.b64decode(data))))
    assert image.shape == (64, 64, 3) and np.abs(image.astype(int) - (200, 30, 30)).max() < 6
