import errno
import os
import signal
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from infoclip_mmseg.datasets.prepare import PrepareError
from infoclip_mmseg.datasets.prepare.label_files import (
    Task,
    explain_full_disk,
    map_labels,
    map_parallel,
    read_indices,
    run_tasks,
    write_image,
)

LABEL = np.zeros((9, 7), np.uint8)


def test_killed_while_writing_leaves_nothing_under_the_final_name(tmp_path, monkeypatch):
    write = Path.write_bytes

    def die(self, data):
        write(self, data[:3])
        os._exit(1)

    child = os.fork()
    if child == 0:
        Path.write_bytes = die
        write_image(tmp_path / 'a.png', LABEL)
    assert os.waitpid(child, 0)[1] != 0
    assert [path.name for path in tmp_path.iterdir()] == ['.a.png.part']
    write_image(tmp_path / 'a.png', LABEL)
    assert [path.name for path in tmp_path.iterdir()] == ['a.png']


def test_error_keeps_what_was_there(tmp_path, monkeypatch):
    path = tmp_path / 'a.png'
    path.write_bytes(b'old')
    monkeypatch.setattr(Path, 'write_bytes', lambda self, data: self.read_text()['new'])
    with pytest.raises(FileNotFoundError):
        write_image(path, LABEL)
    assert path.read_bytes() == b'old' and len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize('code', [errno.ENOSPC, errno.EDQUOT])
def test_disk_full_is_explained(code):
    with pytest.raises(PrepareError, match='the disk is full'), explain_full_disk(Path('a')):
        raise OSError(code, 'full')
    for other in (OSError(errno.EACCES, 'denied'), KeyError()):
        with pytest.raises(type(other)), explain_full_disk(Path('a')):
            raise other


@pytest.mark.parametrize('suffix, dtype', [('.png', np.uint8), ('.tif', np.uint16)])
def test_labels_come_back(suffix, dtype, tmp_path):
    label = np.random.default_rng(0).integers(0, np.iinfo(dtype).max + 1, (9, 7)).astype(dtype)
    write_image(tmp_path / f'a{suffix}', label)
    values = read_indices(tmp_path / f'a{suffix}')
    assert values.dtype == dtype
    np.testing.assert_array_equal(values, label)


def test_png_without_its_end(tmp_path):
    write_image(tmp_path / 'a.png', LABEL)
    (tmp_path / 'a.png').write_bytes((tmp_path / 'a.png').read_bytes()[:-12])
    assert Image.open(tmp_path / 'a.png').load()  # Pillow reads it
    with pytest.raises(ValueError, match='cut short'):
        read_indices(tmp_path / 'a.png')


@pytest.mark.parametrize('value', [3, 4])
def test_values_without_a_class(value):
    table = {0: 7, 1: 8, 2: 9, 5: 255}
    labels = map_labels(np.array([[0, 2]]), table, Path('a'))
    assert labels.tolist() == [[7, 9]] and labels.dtype == np.uint8
    assert map_labels(np.array([[0]]), {0: 256}, Path('a')).dtype == np.uint16
    with pytest.raises(ValueError, match=f'holds \\[{value}\\]'):
        map_labels(np.array([[0, value]]), table, Path('a'))


def make(path, bad):
    if bad:
        raise ValueError(f'{path.name} is bad')
    path.write_bytes(b'x')


def die(number):
    if number == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return number


def threads(_):
    return cv2.getNumThreads()


@pytest.mark.parametrize('workers', [1, 2])
def test_bad_input_does_not_stop_the_others(workers, tmp_path):
    paths = [tmp_path / f'{n:02}' for n in range(20)]
    tasks = [Task((p,), partial(make, p, n % 5 == 2 or n > 10)) for n, p in enumerate(paths)]
    paths[0].write_bytes(b'made before')
    done = []
    with pytest.raises(PrepareError) as error:
        run_tasks(tasks, workers, lambda advance: done.append(advance))
    text = str(error.value)
    assert '11 of 20 could not be converted' in text and '02 is bad' in text
    assert 'and 1 more' in text and text.count('is bad') == 10
    assert sum(done) == 20 and paths[0].read_bytes() == b'made before'
    assert sum(path.is_file() for path in paths) == 9


def test_results_of_two_processes():
    assert list(map_parallel(abs, range(-50, 50), 2)) == [abs(n) for n in range(-50, 50)]


def test_killed_process_ends_with_a_message():
    with pytest.raises(PrepareError, match='fewer --workers'):
        list(map_parallel(die, range(20), 2))


def test_opencv_has_no_threads_when_processes_are_forked():
    """With them a forked process sometimes waits for ever."""
    before = cv2.getNumThreads()
    cv2.setNumThreads(2)
    try:
        assert set(map_parallel(threads, range(20), 2)) == {1}
        assert cv2.getNumThreads() == 2
    finally:
        cv2.setNumThreads(before)
