from __future__ import annotations

import http.server
import threading
from functools import partial

import cv2
import numpy as np
import pytest
from PIL import Image

from infoclip_mmseg.apis import image_sources
from infoclip_mmseg.apis.image_sources import (
    Limits,
    count_pictures,
    fetch,
    list_sources,
    open_source,
)
from infoclip_mmseg.utils.images import ImageError


def names(inputs) -> list[str]:
    return [source.name.rsplit('/', 1)[-1] for source in list_sources(inputs)]


@pytest.fixture
def folder(tmp_path):
    for name in ('a10.jpg', 'a2.PNG', 'b/a2.png', '.hidden.jpg', 'notes.txt'):
        path = tmp_path / 'set' / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b'')
    return tmp_path / 'set'


def test_folder_and_patterns(folder):
    assert names(folder) == ['a2.PNG', 'a10.jpg']
    assert names(str(folder / '*.jpg')) == ['a10.jpg']
    assert names(str(folder / '**/*.[pP][nN][gG]')) == ['a2.PNG', 'a2.png']
    stems = [s.stem for s in list_sources([folder, folder / 'b', np.zeros((8, 8, 3))])]
    assert stems == ['a2', 'a10', 'a2-2', '00000003']


def test_a_file_whose_name_looks_like_a_pattern(tmp_path):
    (tmp_path / 'a[1].jpg').write_bytes(b'')
    assert names(tmp_path / 'a[1].jpg') == ['a[1].jpg']


@pytest.mark.parametrize('name', ['photos [2024]', '[a]', 'x*y', 'a?b'])
def test_patterns_in_a_folder_with_brackets(tmp_path, name, monkeypatch):
    below = tmp_path / name / 'day [1]'
    below.mkdir(parents=True)
    (below / '1.jpg').write_bytes(b'')
    (tmp_path / name / '2.jpg').write_bytes(b'')
    assert names(str(tmp_path / name / '*.jpg')) == ['2.jpg']
    assert names(str(tmp_path / name / '**' / '*.jpg')) == ['2.jpg', '1.jpg']
    assert names(str(below / '[0-9].jpg')) == ['1.jpg']
    monkeypatch.chdir(tmp_path)
    assert names(f'{name}/*.jpg') == ['2.jpg']
    assert names('*/*.jpg') == ['2.jpg']


def test_what_a_folder_holds_besides_images_is_said(folder, monkeypatch):
    for name in ('a.heic', 'b.HEIC', 'c.jfif', 'd.mp4'):
        (folder / name).write_bytes(b'')
    said = []
    monkeypatch.setattr(image_sources, 'print_log', lambda text, **options: said.append(text))
    assert names(folder) == ['a2.PNG', 'a10.jpg']
    (text,) = said
    assert '2 images; left out: 2 .heic, 1 .jfif, 1 .mp4, 1 .txt.' in text
    for path in folder.glob('*.[jPp]*g'):
        path.unlink()
    (folder / 'a2.PNG').unlink()
    with pytest.raises(FileNotFoundError, match=r'no image .*only 2 \.heic, 1 \.jfif'):
        list_sources(folder)


def test_wrong_inputs(folder, tmp_path):
    with pytest.raises(FileNotFoundError, match=r'x1.jpg, .*x5.jpg and 2 more: no such file'):
        list_sources([folder / 'a10.jpg', *(tmp_path / f'x{i}.jpg' for i in range(1, 8))])
    (tmp_path / 'empty').mkdir()
    (tmp_path / 'empty/notes.txt').write_text('')
    with pytest.raises(FileNotFoundError, match='has 1 entries but no image'):
        list_sources(tmp_path / 'empty')
    for url in ('ftp://host/a.jpg', 'file:///etc/passwd', 's3://bucket/a.jpg'):
        with pytest.raises(ImageError, match='only http and https'):
            list_sources(url)
    with pytest.raises(TypeError, match='images must be .* got int'):
        list_sources([3])
    with pytest.raises(ValueError, match='the list is empty'):
        list_sources([])


@pytest.fixture
def video(tmp_path):
    path = str(tmp_path / 'clip.avi')
    writer = cv2.VideoWriter(path, cv2.VideoWriter_fourcc(*'MJPG'), 10, (64, 48))
    for index in range(7):
        writer.write(np.full((48, 64, 3), 30 * index, np.uint8))
    writer.release()
    return path


def test_frames_of_a_video(video):
    (source,) = list_sources(video)
    frames = list(open_source(source, Limits(frame_step=3)))
    assert [frame.stem for frame in frames] == ['clip_000000', 'clip_000003', 'clip_000006']
    assert [round(float(frame.image.mean()) / 30) for frame in frames] == [0, 3, 6]
    assert frames[1].name == f'{video}#3'
    assert count_pictures([source], 3) == 3
    with pytest.raises(ImageError, match='64 x 48 pixels are more than the limit'):
        list(open_source(source, Limits(max_pixels=100)))


def test_a_video_that_is_none(tmp_path):
    (tmp_path / 'clip.mp4').write_bytes(b'no video')
    (source,) = list_sources(tmp_path / 'clip.mp4')
    with pytest.raises(ImageError, match='clip.mp4: the video cannot be opened'):
        list(open_source(source, Limits()))
    assert count_pictures([source]) == 1


class Handler(http.server.SimpleHTTPRequestHandler):
    def do_GET(self):
        if self.path.startswith('/to/'):
            self.send_response(302)
            self.send_header('Location', self.path.removeprefix('/to/'))
            self.end_headers()
        else:
            super().do_GET()

    def log_message(self, *args):
        pass


@pytest.fixture
def server(tmp_path, monkeypatch):
    monkeypatch.setenv('no_proxy', '127.0.0.1')
    handler = partial(Handler, directory=str(tmp_path))
    with http.server.ThreadingHTTPServer(('127.0.0.1', 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f'http://127.0.0.1:{server.server_port}'
        server.shutdown()
        thread.join()


def test_images_from_the_web(server, photo):
    (source,) = list_sources(f'{server}/photo.png?size=large#top')
    assert source.stem == 'photo'
    (picture,) = open_source(source, Limits())
    assert np.array_equal(picture.image, np.array(Image.open(photo)))
    with pytest.raises(ImageError, match='larger than the limit of 100 bytes'):
        list(open_source(source, Limits(max_bytes=100)))
    with pytest.raises(ImageError, match=r'no.png: cannot be fetched \('):
        fetch(f'{server}/no.png')
    assert fetch(f'{server}/to/{server}/photo.png') == photo.read_bytes()
    for away in ('file:///etc/passwd', 'ftp://127.0.0.1/a.png'):
        with pytest.raises(ImageError, match='cannot be fetched'):
            fetch(f'{server}/to/{away}')


def test_a_server_that_is_not_there():
    with pytest.raises(ImageError, match='cannot be fetched'):
        fetch('http://127.0.0.1:9/a.png', timeout=2)
    with pytest.raises(ImageError, match='only http and https'):
        fetch('file:///etc/passwd')


def test_limits():
    with pytest.raises(ValueError, match='frame_step must be 1 or more, got 0'):
        Limits(frame_step=0)
