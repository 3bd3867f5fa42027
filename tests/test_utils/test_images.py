from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from infoclip_mmseg.utils.images import ImageError, array_to_rgb, read_image, to_rgb

RED, BLUE = (200, 0, 0), (0, 0, 200)


def halves(image) -> list[tuple[int, ...]]:
    """Colours in the middle of the left and of the right half."""
    height, width = image.shape[:2]
    return [tuple(image[height // 2, x].tolist()) for x in (width // 4, 3 * width // 4)]


def png_header(width: int, height: int) -> bytes:
    """A PNG that says it is of this size, with next to no pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        check = struct.pack('>I', zlib.crc32(kind + data))
        return struct.pack('>I', len(data)) + kind + data + check

    header = struct.pack('>IIBBBBB', width, height, 8, 2, 0, 0, 0)
    start = b'\x89PNG\r\n\x1a\n' + chunk(b'IHDR', header)
    return start + chunk(b'IDAT', zlib.compress(bytes(1000))) + chunk(b'IEND', b'')


@pytest.mark.parametrize('mode', ['RGB', 'RGBA', 'P', 'CMYK', 'L', 'LA', '1', 'I;16'])
@pytest.mark.parametrize('suffix', ['png', 'tif'])
def test_every_mode(photo, tmp_path, mode, suffix):
    image = Image.open(photo)
    if mode == 'CMYK' and suffix == 'png':
        pytest.skip('no such PNG')
    if mode == 'I;16':
        image = Image.fromarray(np.array(image.convert('L')).astype(np.uint16) * 257)
    elif mode == 'P':
        image = image.quantize(8)
    else:
        image = image.convert(mode)
    path = tmp_path / f'other.{suffix}'
    image.save(path)
    read = read_image(path)
    assert read.shape == (48, 64, 3) and read.dtype == np.uint8
    if mode in ('RGB', 'RGBA', 'P', 'CMYK'):
        assert np.abs(np.subtract(halves(read), (RED, BLUE))).max() <= 3
    elif mode != '1':
        grey = np.array(Image.open(photo).convert('L'))
        assert np.array_equal(read, grey[..., None].repeat(3, 2))


def test_exif_orientation(photo, tmp_path):
    image = Image.open(photo)
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees clockwise
    path = tmp_path / 'turned.jpg'
    image.save(path, exif=exif, quality=95)
    read = read_image(path)
    assert read.shape == (64, 48, 3)
    assert read[8, 24, 0] > 150 and read[-8, 24, 2] > 150  # left is now above


def test_transparent_pixels_show_white():
    layer = Image.new('RGBA', (16, 16), (10, 20, 30, 0))
    assert (to_rgb(layer) == 255).all()
    palette = Image.new('P', (16, 16), 0)
    palette.putpalette([10, 20, 30])
    palette.info['transparency'] = 0
    assert (to_rgb(palette) == 255).all()


def test_arrays_are_bgr():
    array = np.zeros((16, 16, 3), np.uint8)
    array[..., 0] = 9
    assert array_to_rgb(array)[0, 0].tolist() == [0, 0, 9]
    assert array_to_rgb(np.full((4, 4), 65535, np.uint16))[0, 0].tolist() == [255] * 3
    assert array_to_rgb(np.full((4, 4, 1), 257, np.uint16))[0, 0].tolist() == [1] * 3
    bgra = np.concatenate([array, np.full((16, 16, 1), 255, np.uint8)], axis=2)
    assert array_to_rgb(bgra)[0, 0].tolist() == [0, 0, 9]


@pytest.mark.parametrize(
    'array',
    [
        np.zeros((4, 4, 2), np.uint8),
        np.zeros((2, 4, 4, 3), np.uint8),
        np.zeros((0, 4, 3), np.uint8),
        np.zeros((4, 4, 3), np.float32),
        np.full((4, 4), -1, np.int32),
        np.full((4, 4), 70000, np.int32),
    ],
)
def test_other_arrays_are_refused(array):
    with pytest.raises(ImageError, match=r'name: (an array must be|values of dtype)'):
        array_to_rgb(array, 'name')


def jpeg() -> bytes:
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(noise).save(buffer, 'JPEG')
    return buffer.getvalue()


@pytest.mark.parametrize(
    ('content', 'message'),
    [
        (b'', r'empty \(0 bytes\)'),
        (jpeg()[:900], 'damaged or truncated'),
        (png_header(100, 100), 'damaged or truncated'),
        (b'this is a text file\n' * 9, 'no image of a known format .*this is a te'),
        (b'%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n', 'no image of a known format'),
        (png_header(40000, 40000), '1600000000 pixels'),
        (png_header(10000, 9000), '10000 x 9000 pixels are more than the limit of 80000000'),
    ],
)
def test_bad_files(tmp_path, content, message):
    path = tmp_path / 'bad.jpg'
    path.write_bytes(content)
    with pytest.raises(ImageError, match=message) as info:
        read_image(path)
    assert str(info.value).startswith(str(path))


def test_limit_of_pixels_is_an_option(photo):
    with pytest.raises(ImageError, match='64 x 48 pixels are more than the limit of 3000'):
        read_image(photo, max_pixels=3000)
    with pytest.raises(ImageError, match='PIL.Image.MAX_IMAGE_PIXELS'):
        read_image(png_header(40000, 40000), max_pixels=10**10)


def test_missing_file_and_folder(tmp_path):
    with pytest.raises(FileNotFoundError, match='no.jpg: no such file'):
        read_image(tmp_path / 'no.jpg')
    with pytest.raises(ImageError, match='cannot be read'):
        read_image(tmp_path)
