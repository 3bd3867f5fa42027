"""Training, tests, inference, the web page and the ONNX example see the same picture."""

from __future__ import annotations

import struct
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
from mmcv.transforms import Compose
from mmengine.config import Config
from mmseg.registry import TRANSFORMS
from PIL import Image

from infoclip_mmseg.apis.image_sources import Limits, list_sources, open_source
from infoclip_mmseg.utils import images
from infoclip_mmseg.utils.images import ImageError, read_image

ROOT = Path(__file__).resolve().parents[2]
SIZE = (60, 44)  # width, height


def base() -> np.ndarray:
    x, y = np.meshgrid(np.arange(SIZE[0]), np.arange(SIZE[1]))
    return np.stack([4 * x, 5 * y, 255 - 2 * (x + y)], axis=-1).clip(0, 255).astype(np.uint8)


def write_odd_files(folder: Path) -> list[Path]:
    rgb = Image.fromarray(base())
    alpha = Image.fromarray((np.arange(SIZE[0] * SIZE[1]).reshape(SIZE[::-1]) % 256).astype('u1'))
    deep = np.arange(SIZE[0] * SIZE[1], dtype=np.uint16).reshape(SIZE[::-1]) * 24
    turned = Image.Exif()
    turned[0x0112] = 6
    clear = rgb.quantize(16)
    clear.info['transparency'] = 3
    rgb.putalpha(alpha)
    plain = rgb.convert('RGB')
    grey = plain.convert('L')
    grey_alpha = grey.convert('LA')
    grey_alpha.putalpha(alpha)
    rgb.save(folder / 'rgba.png')
    rgb.save(folder / 'rgba.webp', lossless=True)
    grey_alpha.save(folder / 'grey_alpha.png')
    clear.save(folder / 'palette_clear.png', transparency=3)
    plain.quantize(16).save(folder / 'palette.png')
    Image.fromarray(deep).save(folder / 'deep.png')
    Image.fromarray(deep).save(folder / 'deep.tif')
    plain.convert('CMYK').save(folder / 'cmyk.jpg', quality=95)
    plain.save(folder / 'turned.jpg', exif=turned, quality=95)
    plain.save(folder / 'turned.png', exif=turned)
    plain.convert('1').save(folder / 'bits.png')
    plain.save(folder / 'plain.png')
    plain.save(folder / 'plain.jpg', quality=95)
    grey.save(folder / 'grey.jpg')
    return sorted(folder.iterdir())


def loaded(config: str, key: str, path: Path) -> np.ndarray:
    """The image after a pipeline's steps that read files, as RGB."""
    cfg = Config.fromfile(ROOT / f'configs/{config}.py')
    steps = cfg.get(key) or cfg[key.split('_')[0] + '_dataloader'].dataset.pipeline
    last = max(i for i, s in enumerate(steps) if s['type'] == 'LoadImageFromFile') + 1
    reading = [*steps[:last], dict(type='CheckInputs')]
    names = [step['type'] for step in steps]
    # There is a check behind the loading, with nothing but the labels' loading before it.
    between = names[last : names.index('CheckInputs', last)]
    assert all(name.startswith(('Load', 'Resize')) for name in between)
    result = Compose([TRANSFORMS.build(step) for step in reading])(dict(img_path=str(path)))
    assert result['img_shape'] == result['ori_shape'] == result['img'].shape[:2]
    return result['img'][..., ::-1]


PIPELINES = [
    ('infoclip_vitb16_coco-stuff', 'train_pipeline'),
    ('infoclip_vitb16_coco-stuff', 'test_pipeline'),
    ('infoclip_vitb16_coco-stuff', 'tta_pipeline'),
    ('clearclip/clearclip_vitb16_voc20', 'test_pipeline'),
    ('toy/infoclip_toy_ade-3-images', 'train_pipeline'),
    ('compose/_base_/ade20k_512', 'train_pipeline'),
    ('compose/_base_/ade20k_512', 'test_pipeline'),
    ('compose/_base_/coco-stuff_640', 'train_pipeline'),
]


@pytest.mark.parametrize(('config', 'key'), PIPELINES)
def test_pipelines_see_what_inference_sees(tmp_path, config, key):
    for path in write_odd_files(tmp_path):
        seen = read_image(path)
        (source,) = list_sources(path)
        (picture,) = open_source(source, Limits())
        assert np.array_equal(picture.image, seen)
        got = loaded(config, key, path)
        assert got.shape == seen.shape, path.name
        # Decoders of ordinary JPEG files may round differently.
        tolerance = 2 if path.name in ('plain.jpg', 'grey.jpg', 'turned.jpg') else 0
        assert np.abs(got.astype(int) - seen).max() <= tolerance, path.name


def test_what_is_seen(tmp_path):
    write_odd_files(tmp_path)
    seen = read_image(tmp_path / 'rgba.png')
    assert seen[0, 0].tolist() == [255, 255, 255]  # transparent: paper
    assert np.abs(seen[4, 15].astype(int) - base()[4, 15]).max() <= 1  # opaque: alpha 255
    assert read_image(tmp_path / 'turned.png').shape == (60, 44, 3)
    deep = read_image(tmp_path / 'deep.png')
    assert deep.max() > 200 and deep.min() == 0  # 16 bits are not cut off at 255


def tiff(path: Path, bits: int, photometric: int, planes: int, compression: int = 1) -> Path:
    """A TIFF of 4 x 2 pixels, little endian, one strip a plane."""
    samples = 3 if photometric == 2 else 1
    values = np.arange(8 * samples, dtype='<u2' if bits == 16 else 'u1') * (
        300 if bits == 16 else 9
    )
    strips = np.split(values, samples if planes == 2 else 1)
    data = [s.tobytes() if compression == 1 else zlib.compress(s.tobytes()) for s in strips]
    count, extra = len(data), 8 + 2 + 12 * 10 + 4
    bits_at, offsets_at, counts_at = extra, extra + 8, extra + 8 + 4 * count
    start = counts_at + 4 * count
    offsets = [start + sum(map(len, data[:i])) for i in range(count)]
    several = lambda at, what: at if count > 1 else what[0]  # noqa: E731
    entries = [
        (256, 4, 1, 4),
        (257, 4, 1, 2),
        (258, 3, samples, bits if samples == 1 else bits_at),
        (259, 3, 1, compression),
        (262, 3, 1, photometric),
        (273, 4, count, several(offsets_at, offsets)),
        (277, 3, 1, samples),
        (278, 4, 1, 2),
        (279, 4, count, several(counts_at, [len(d) for d in data])),
        (284, 3, 1, planes),
    ]
    body = b'II*\0' + struct.pack('<IH', 8, len(entries))
    body += b''.join(struct.pack('<HHII', *entry) for entry in entries) + bytes(4)
    body += struct.pack('<4H', *([bits] * samples + [0] * (4 - samples)))
    body += struct.pack(f'<{count}I', *offsets)
    body += struct.pack(f'<{count}I', *[len(d) for d in data])
    path.write_bytes(body + b''.join(data))
    return path


def test_tiff_files_that_pillow_gets_wrong_are_refused(tmp_path):
    white = tiff(tmp_path / 'white.tif', 16, photometric=0, planes=1)
    planar = tiff(tmp_path / 'planar.tif', 16, photometric=2, planes=2)
    check = TRANSFORMS.build(dict(type='CheckInputs'))
    for path, said in ((white, 'counts down from white'), (planar, 'one after the other')):
        with pytest.raises(ImageError, match=said):
            read_image(path)
        with pytest.raises(ValueError, match=said):
            check(dict(img_path=str(path)))


@pytest.mark.parametrize(
    'tags', [(8, 0, 1), (8, 1, 1), (16, 1, 1), (8, 2, 1), (8, 2, 2), (16, 2, 1), (16, 2, 2, 8)]
)
def test_other_tiff_files_are_read_rightly(tmp_path, tags):
    bits, photometric, planes, *_ = tags
    path = tiff(tmp_path / 'a.tif', *tags)
    samples = 3 if photometric == 2 else 1
    values = np.arange(8 * samples).astype(float) * (300 / 257 if bits == 16 else 9)
    if photometric == 0:
        values = 255 - values
    shape = (samples, 2, 4) if planes == 2 else (2, 4, samples)
    values = values.reshape(shape)
    expected = np.moveaxis(values, 0, -1) if planes == 2 else values
    assert np.abs(read_image(path) - np.broadcast_to(expected, (2, 4, 3))).max() < 1


def test_the_example_loads_the_reader_without_the_package():
    folder = Path(images.__file__).parent
    code = (
        f'import sys; sys.path.insert(0, {str(folder)!r}); import images; '
        'print(*{name.split(".")[0] for name in sys.modules})'
    )
    out = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True)
    assert not {'torch', 'mmseg', 'mmengine', 'infoclip_mmseg', 'cv2'} & set(out.stdout.split())
    text = (ROOT / 'tools/onnx_example.py').read_text()
    assert 'from images import read_image' in text and 'Image.open' not in text
