import numpy as np
import pytest
from PIL import Image

from infoclip_mmseg.datasets.toy import (
    CLASSES,
    PALETTE,
    ToyShapesDataset,
    render_scene,
    write_toy_data,
)


def read_all(root):
    return {p.relative_to(root): p.read_bytes() for p in sorted(root.rglob('*.png'))}


@pytest.mark.parametrize('size', [(32, 32), (64, 160), (120, 48)])
def test_scene_shapes_and_ranges(size):
    image, label = render_scene(np.random.default_rng(0), size)
    assert image.shape == (*size, 3) and image.dtype == np.uint8
    assert label.shape == size and label.dtype == np.uint8
    assert label.max() < len(CLASSES)
    assert len(np.unique(label)) >= 2


def test_every_class_is_drawn_and_looks_like_its_palette_colour():
    rng = np.random.default_rng(1)
    scenes = [render_scene(rng, (80, 80)) for _ in range(40)]
    pixels = np.concatenate([image.reshape(-1, 3) for image, _ in scenes])
    labels = np.concatenate([label.reshape(-1) for _, label in scenes])
    means = np.stack([pixels[labels == index].mean(0) for index in range(len(CLASSES))])
    distance = np.linalg.norm(means[:, None] - np.array(PALETTE)[None], axis=-1)
    assert distance.argmin(1).tolist() == list(range(len(CLASSES)))


def test_equal_seeds_write_equal_bytes(tmp_path):
    for name in ('a', 'b'):
        write_toy_data(tmp_path / name, num_train=4, num_val=2, seed=3)
    write_toy_data(tmp_path / 'c', num_train=4, num_val=2, seed=4)
    files = read_all(tmp_path / 'a')
    assert len(files) == 12
    assert files == read_all(tmp_path / 'b')
    assert all(data != files[name] for name, data in read_all(tmp_path / 'c').items())
    assert len(set(files.values())) == 12


def test_written_once_and_again_for_another_recipe(tmp_path):
    write_toy_data(tmp_path, num_train=2, num_val=1)
    scene = tmp_path / 'images/training/scene_0000.png'
    time = scene.stat().st_mtime_ns
    write_toy_data(tmp_path, num_train=2, num_val=1)
    assert scene.stat().st_mtime_ns == time
    write_toy_data(tmp_path, num_train=1, num_val=1)
    assert len(read_all(tmp_path)) == 4


def test_dataset_reads_what_was_written(tmp_path):
    write_toy_data(tmp_path, num_train=3, num_val=2, sides=(40, 90))
    prefix = dict(img_path='images/training', seg_map_path='annotations/training')
    dataset = ToyShapesDataset(data_root=str(tmp_path), data_prefix=prefix)
    assert len(dataset) == 3
    assert dataset.metainfo['classes'] == CLASSES
    sizes = set()
    for index in range(3):
        info = dataset.get_data_info(index)
        with Image.open(info['img_path']) as image, Image.open(info['seg_map_path']) as label:
            assert image.size == label.size
            assert image.mode == 'RGB' and label.mode == 'L'
            assert all(40 <= side <= 90 for side in image.size)
            sizes.add(image.size)
    assert len(sizes) == 3
