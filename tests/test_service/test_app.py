"""The service over HTTP, in one process; tests/test_tools/test_serve.py runs the program."""

from __future__ import annotations

import base64
import io
import json
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask

from infoclip_mmseg import OpenVocabInferencer
from infoclip_mmseg.world import ComposedWorldDataset

testclient = pytest.importorskip('fastapi.testclient')
pytest.importorskip('prometheus_client')
from infoclip_mmseg.service.app import Settings, create_app  # noqa: E402

WORDS = ['red striped object', 'grass', 'snow']


def png(image) -> bytes:
    content = io.BytesIO()
    Image.fromarray(image).save(content, 'PNG')
    return content.getvalue()


def body(content: bytes) -> dict:
    return dict(type='base64', value=base64.b64encode(content).decode())


def question(images, words=WORDS, **options) -> dict:
    prompts = [dict(type='text', text=word) for word in words]
    images = [body(png(image)) for image in images]
    picture = dict(image=images[0]) if len(images) == 1 else dict(images=images)
    return dict(prompts=prompts, **picture, **options)


@pytest.fixture(scope='module')
def inferencer():
    return OpenVocabInferencer(device='cpu')


@pytest.fixture(scope='module')
def photos():
    dataset = ComposedWorldDataset(length=6, split='test', seed=1, pipeline=[])
    return [dataset.scene(index).image for index in range(6)]


@pytest.fixture(scope='module')
def client(inferencer):
    with testclient.TestClient(create_app(inferencer)) as client:
        yield client


def test_masks_of_prompts(client, inferencer, photos):
    [expected] = inferencer(Image.fromarray(photos[0]), WORDS)
    for form in ('rle', 'polygon', 'png'):
        answer = client.post('/concept_segment', json=question(photos[:1], format=form)).json()
        assert (answer['width'], answer['height']) == (64, 64) and answer['time'] > 0
        assert [r['echo']['text'] for r in answer['prompt_results']] == WORDS
        for index, result in enumerate(answer['prompt_results']):
            mask = expected.labels == index
            assert result['prompt_index'] == index
            assert len(result['predictions']) == int(mask.any())
            for found in result['predictions']:
                assert found['format'] == form
                assert found['confidence'] == pytest.approx(expected.mean_scores[index])
                if form == 'rle':
                    assert np.array_equal(coco_mask.decode(found['masks']).astype(bool), mask)
                elif form == 'png':
                    picture = Image.open(io.BytesIO(base64.b64decode(found['masks'])))
                    assert np.array_equal(np.asarray(picture), mask)
                else:
                    assert all(len(ring) >= 3 for ring in found['masks'])
    high = question(photos[:1], output_prob_thresh=1)
    results = client.post('/concept_segment', json=high).json()['prompt_results']
    assert not any(result['predictions'] for result in results)


def test_batch_is_as_one_by_one(client, photos):
    together = client.post('/batch', json=question(photos, format='rle')).json()['results']
    for photo, answer in zip(photos, together, strict=True):
        alone = client.post('/concept_segment', json=question([photo], format='rle')).json()
        masks = [
            [found['masks'] for r in one['prompt_results'] for found in r['predictions']]
            for one in (alone, answer)
        ]
        assert masks[0] == masks[1]


def test_form_and_png(client, inferencer, photos):
    files = dict(image=('a.png', png(photos[1]), 'image/png'))
    data = dict(prompts=['red striped object; grass'], background='snow; bricks')
    answer = client.post('/segment', files=files, data=data)
    assert answer.status_code == 200 and answer.headers['content-type'] == 'image/png'
    words = ['red striped object', 'grass']
    [expected] = inferencer(Image.fromarray(photos[1]), words, ['snow', 'bricks'])
    assert json.loads(answer.headers['x-names']) == [*words, 'background']
    labels = np.asarray(Image.open(io.BytesIO(answer.content)))
    assert np.array_equal(labels, expected.labels)


BAD = {
    'value is no base64': dict(image=dict(type='base64', value='***')),
    'no image of a known format': dict(image=body(b'GIF?<script>')),
    'the file is empty': dict(image=dict(type='base64', value='')),
    "Input should be 'base64'": dict(image=dict(type='url', value='http://169.254.169.254/')),
    'at least 1 item': dict(prompts=[]),
    'at most 500 characters': dict(prompts=[dict(text='a' * 501)]),
    'polygon': dict(format='exe'),
    'less than or equal to 1': dict(output_prob_thresh=2),
    'at most 1000 items': dict(prompts=[dict(text=f'w{i}') for i in range(1001)]),
}


@pytest.mark.parametrize('message', BAD)
def test_bad_input_is_named(message, client, photos):
    answer = client.post('/concept_segment', json={**question(photos[:1]), **BAD[message]})
    assert answer.status_code == 422 and message in answer.text
    assert answer.headers['content-type'] == 'application/json'  # markup in it is only text


def test_a_form_without_words(client, photos):
    files = dict(image=('a.png', png(photos[1]), 'image/png'))
    answer = client.post('/segment', files=files, data=dict(prompts=' ; '))
    assert answer.status_code == 422 and 'prompts' in answer.text


def bomb(side: int) -> bytes:
    content = io.BytesIO()
    Image.new('1', (side, side)).save(content, 'PNG')
    return content.getvalue()


def test_limits(inferencer, photos):
    app = create_app(inferencer, Settings(max_body=40_000, max_pixels=10_000))
    with testclient.TestClient(app) as client:
        large = client.post('/concept_segment', json=question([np.zeros((101, 100, 3), np.uint8)]))
        assert large.status_code == 422 and 'more than the limit of 10000' in large.text
        picture = dict(image=body(bomb(20_000)))
        bombed = client.post('/concept_segment', json={**question(photos[:1]), **picture})
        assert bombed.status_code in (413, 422)
        told = client.post('/concept_segment', content=b'x' * 50_000)
        assert told.status_code == 413 and '40000 bytes' in told.text

        def pieces():
            for _ in range(100):
                yield b'x' * 1000

        streamed = client.post('/concept_segment', content=pieces())  # no Content-Length
        assert streamed.status_code == 413
        assert client.post('/concept_segment', json=question(photos[:1])).status_code == 200


def test_token(inferencer, photos):
    with testclient.TestClient(create_app(inferencer, Settings(token='s'))) as client:
        asked = question(photos[:1])
        for header in ({}, {'Authorization': 'Bearer t'}, {'Authorization': 'Basic s'}):
            refused = client.post('/concept_segment', json=asked, headers=header)
            assert refused.status_code == 401 and refused.headers['www-authenticate'] == 'Bearer'
        header = {'Authorization': 'Bearer s'}
        assert client.post('/concept_segment', json=asked, headers=header).status_code == 200
        assert client.get('/health').status_code == 200


def test_many_at_once_and_none_lost(inferencer, photos):
    """200 requests of three vocabularies: each gets its own answer."""
    vocabularies = [WORDS, ['sand', 'grass'], ['water', 'snow', 'bricks', 'blue plain object']]
    cases = [(photos[n % 6], vocabularies[n % 3]) for n in range(200)]
    expected = {}
    for number in range(6):
        [found] = inferencer(Image.fromarray(cases[number][0]), cases[number][1])
        expected[number] = [region.name for region in found.regions().regions]
    with testclient.TestClient(create_app(inferencer, Settings(max_queue=200))) as client:

        def ask(number):
            photo, words = cases[number]
            return client.post('/concept_segment', json=question([photo], words, format='rle'))

        with ThreadPoolExecutor(32) as pool:
            answers = list(pool.map(ask, range(200)))
        figures = client.get('/metrics').text
    for number, answer in enumerate(answers):
        assert answer.status_code == 200
        results = answer.json()['prompt_results']
        assert [r['echo']['text'] for r in results] == cases[number][1]
        found = [r['echo']['text'] for r in results if r['predictions']]
        assert found == expected[number % 6]
    assert 'infoclip_images_total 200.0' in figures
    assert 'infoclip_requests_total{path="/concept_segment",status="200"} 200.0' in figures


class Slow:
    """A model that waits until it is let go."""

    def __init__(self, inferencer):
        self.inferencer, self.go = inferencer, threading.Event()
        self.plan = inferencer.plan

    def __call__(self, *args, **options):
        self.go.wait(20)
        return self.inferencer(*args, **options)


def test_overload_and_time_limit(inferencer, photos):
    slow = Slow(inferencer)
    settings = Settings(max_queue=2, max_batch=1, timeout=1.5)
    with testclient.TestClient(create_app(slow, settings)) as client:

        def ask(_):
            return client.post('/concept_segment', json=question(photos[:1]))

        with ThreadPoolExecutor(8) as pool:
            answers = list(pool.map(ask, range(8)))
            codes = sorted(answer.status_code for answer in answers)
            assert set(codes) == {503, 504} and codes.count(504) in (2, 3)
            full = [answer for answer in answers if answer.status_code == 503]
            assert all(int(answer.headers['retry-after']) >= 1 for answer in full)
            slow.go.set()
            assert ask(0).status_code == 200


def test_the_page_of_addresses(client):
    paths = client.get('/openapi.json').json()['paths']
    assert set(paths) == {'/health', '/metrics', '/concept_segment', '/batch', '/segment'}
    assert client.get('/docs').status_code == 200
    assert client.get('/health').json()['status'] == 'ok'
    assert client.get('/../etc/passwd').status_code == 404
