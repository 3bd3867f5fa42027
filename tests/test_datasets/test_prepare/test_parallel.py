import os
import signal
from functools import partial

import cv2
import pytest

from infoclip_mmseg.datasets.prepare import PrepareError
from infoclip_mmseg.datasets.prepare.parallel import Task, map_parallel, run_tasks


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
