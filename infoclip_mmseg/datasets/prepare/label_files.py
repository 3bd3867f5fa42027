"""Label maps as files: read, checked, converted in several processes, written in one step.

What is finished is not made again; a full disk is told of.
"""

from __future__ import annotations

import errno
import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
from PIL import Image

from infoclip_mmseg.datasets.checks import PNG_END
from infoclip_mmseg.datasets.label_maps import decode_label_map
from infoclip_mmseg.utils.files import first_few, write_whole

Update = Callable[..., None]
"""Of a progress bar: `update(advance=n)` bytes or images more, `update(total=n)` of all."""

FORMATS: dict[str, dict[str, Any]] = {
    '.png': dict(format='PNG'),
    '.tif': dict(format='TIFF', compression='tiff_adobe_deflate'),
    '.jpg': dict(format='JPEG', quality=75),  # as A-847 is published
}


class PrepareError(RuntimeError):
    """A data set can't be prepared; the message says what to do."""


@contextmanager
def explain_full_disk(path: Path) -> Iterator[None]:
    """Turn 'no space left' and 'quota exceeded' into a PrepareError."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise PrepareError(
            f'the disk is full ({error.strerror}) at {path}. Nothing half-written stands under a '
            'final name. Free some space and start the same command again: it goes on from here.'
        ) from error


def write_image(path: Path, pixels: np.ndarray) -> None:
    """Write (H, W), uint8 or uint16, or (H, W, 3), uint8, as .png, .tif or .jpg in one step.

    A full disk is a PrepareError.
    """
    buffer = BytesIO()
    Image.fromarray(pixels).save(buffer, **FORMATS[path.suffix])
    with explain_full_disk(path), write_whole(path) as draft:
        draft.write_bytes(buffer.getvalue())


def read_indices(path: Path) -> np.ndarray:
    """Class indices of a one-channel label map, (H, W): indexed, grey 8-bit or 16-bit.

    A file that is damaged or holds colours is a ValueError.
    """
    data = path.read_bytes()
    if path.suffix == '.png' and PNG_END not in data:  # Pillow does without it
        raise ValueError(
            f'label map {path} is damaged (cut short: its end mark is missing); unpack or copy it '
            'again'
        )
    return decode_label_map(data, str(path))


def check_same_size(label: tuple[int, ...], label_path: Path, image_path: Path) -> None:
    """Check that a label map has the height and width of its image, by the image's header.

    The image is not turned by its EXIF entry: the label maps of the public data sets are not. A
    ValueError tells of other sizes or an image that can't be read.
    """
    try:
        with Image.open(image_path) as image:
            width, height = image.size
    except FileNotFoundError as error:
        raise ValueError(f'image {image_path} is missing') from error
    except (OSError, SyntaxError) as error:
        raise ValueError(
            f'image {image_path} is not readable ({error}); unpack it again'
        ) from error
    if tuple(label) != (height, width):
        raise ValueError(
            f'label map {label_path} is {label[0]} x {label[1]} pixels (height x width), its image '
            f'{image_path} is {height} x {width}: label files were swapped or belong to another '
            'release; unpack both archives again'
        )


def map_labels(values: np.ndarray, table: Mapping[int, int], path: Path) -> np.ndarray:
    """Replace each value, (H, W), non-negative integers, by its label in a table.

    Labels are uint8 where that is enough for all, else uint16. A value without one is a ValueError,
    which names the path of the file.
    """
    seen = np.flatnonzero(np.bincount(values.ravel())).tolist()
    wrong = [value for value in seen if value not in table]
    if wrong:
        raise ValueError(
            f'label map {path} holds {wrong[:5]}, which no class of this data set has; it is '
            'damaged, swapped or of another release'
        )
    lookup = np.zeros(max(table) + 1, np.min_scalar_type(max(table.values())))
    lookup[list(table)] = list(table.values())
    return lookup[values]


def convert_label(
    image: Path,
    source: Path,
    output: Path,
    table: Mapping[int, int],
    read: Callable[[Path], np.ndarray] = read_indices,
) -> None:
    """Convert one label map, which ``read`` reads from the source to values (H, W), by a table.

    A ValueError where it is missing, damaged, of another size than its image, or holds an unknown
    class.
    """
    try:
        values = read(source)
    except FileNotFoundError as error:
        raise ValueError(f'label map {source} is missing; unpack the archive again') from error
    check_same_size(values.shape, source, image)
    write_image(output, map_labels(values, table, source))


def read_list(paths: Sequence[Path]) -> list[str]:
    """Names, one a line, from the first of the text files that is there; else a PrepareError."""
    path = next(filter(Path.is_file, paths), paths[0])
    names = path.read_text(encoding='utf-8').split() if path.is_file() else []
    if not names:
        raise PrepareError(f'the list of images {path} is missing or empty; unpack it again')
    return names


class Task(NamedTuple):
    """One conversion: the files that it makes, each in one step, and what makes them.

    The function raises ValueError for bad input, PrepareError to stop everything.
    """

    outputs: tuple[Path, ...]
    function: Callable[[], None]

    def is_done(self) -> bool:
        """Whether all outputs are there."""
        return all(path.is_file() for path in self.outputs)


def run_tasks(tasks: Sequence[Task], workers: int, update: Update) -> None:
    """Run the tasks that are not done; with one worker in this process.

    A PrepareError tells of bad input (the others were converted), or of a full disk.
    """
    pending = [task for task in tasks if not task.is_done()]
    update(advance=len(tasks) - len(pending))
    problems = []
    for problem in map_parallel(_attempt, pending, workers):
        update(advance=1)
        problems += [f'  {problem}'] if problem else []
    if problems:
        raise PrepareError(
            f'{len(problems)} of {len(tasks)} could not be converted:\n'
            + first_few(sorted(problems), 10, '\n', '\n  and {} more')
            + '\nThe others are done. Mend these and start the same command again.'
        )


def map_parallel(
    function: Callable[[Any], Any], items: Sequence[Any], workers: int
) -> Iterator[Any]:
    """Results of a module's function, in the items' order, over processes; with one in this one.

    A process that was killed is a PrepareError.
    """
    if workers <= 1 or len(items) < 2:
        yield from map(function, items)
        return
    chunk = max(1, min(16, len(items) // (4 * workers)))
    threads = cv2.getNumThreads()
    cv2.setNumThreads(1)  # a process that is forked beside OpenCV's threads can wait for ever
    try:
        answer = (signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to answer
        with ProcessPoolExecutor(workers, initializer=signal.signal, initargs=answer) as pool:
            try:
                yield from pool.map(function, items, chunksize=chunk)
            finally:
                pool.shutdown(cancel_futures=True)
    except BrokenProcessPool as error:
        raise PrepareError(
            'a process was killed, probably for want of memory. Start the same command again '
            f'with fewer --workers (now {workers}): it goes on from here.'
        ) from error
    finally:
        cv2.setNumThreads(threads)


def _attempt(task: Task) -> str | None:
    """Run one task; bad input gives its message."""
    try:
        task.function()
    except (ValueError, OSError) as error:
        return str(error)
    return None
