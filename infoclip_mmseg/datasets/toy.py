"""A small drawn data set, so that the pipeline can be tried without any download."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from mmseg.datasets import BaseSegDataset
from mmseg.registry import DATASETS
from numpy.typing import NDArray
from PIL import Image, ImageDraw

CLASSES = ('sky', 'grass', 'water', 'sand', 'ball', 'box', 'tree', 'star')
PALETTE = (
    (135, 206, 235),
    (60, 160, 60),
    (30, 70, 190),
    (225, 200, 130),
    (220, 40, 40),
    (150, 90, 40),
    (10, 90, 40),
    (250, 230, 30),
)
STRIPES = ((0, 0.1), (1.6, 0.3), (0, 0.8), (0.3, 0.3), (0.6, -0.6), (0.9, 0), (0.7, 0.7), (0, 0))
"""Spatial frequency (radians a pixel, along x and y) of the texture of each class."""

STRIPE_AMPLITUDE = (4.0, 30.0, 25.0, 8.0, 35.0, 30.0, 30.0, 0.0)
VOID = 255


def render_scene(
    rng: np.random.Generator, size: tuple[int, int]
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Draw one scene: sky over grass, water or sand, with two to five objects.

    Args:
        rng: Source of everything random; equal states draw equal scenes.
        size: Height and width in pixels, 32 or more.

    Returns:
        Image (H, W, 3) RGB 0..255 and label map (H, W) with class indices.
    """
    labels = _draw_labels(rng, size)
    colours = np.array(PALETTE, dtype=np.float32)
    colours = colours + rng.uniform(-15, 15, colours.shape).astype(np.float32)
    y, x = np.mgrid[: size[0], : size[1]].astype(np.float32)
    frequency = np.array(STRIPES, dtype=np.float32)[labels]
    waves = np.sin(frequency[..., 0] * x + frequency[..., 1] * y + rng.uniform(0, 6.28))
    texture = waves * np.array(STRIPE_AMPLITUDE, dtype=np.float32)[labels]
    light = 1.0 - rng.uniform(0.0, 0.3) * x / size[1]
    image = colours[labels] * light[..., None] + texture[..., None]
    image = image + rng.normal(0, 6, image.shape)
    return image.clip(0, 255).astype(np.uint8), labels


def _draw_labels(rng: np.random.Generator, size: tuple[int, int]) -> NDArray[np.uint8]:
    """Draw the label map (H, W) of a scene."""
    height, width = size
    canvas = Image.new('L', (width, height), CLASSES.index('sky'))
    pen = ImageDraw.Draw(canvas)
    left, right = (int(v * height) for v in rng.uniform(0.3, 0.6, 2))
    ground = [(0, left), (width, right), (width, height), (0, height)]
    pen.polygon(ground, fill=int(rng.integers(1, 4)))
    for _ in range(int(rng.integers(2, 6))):
        name = CLASSES[int(rng.integers(4, len(CLASSES)))]
        radius = rng.uniform(0.12, 0.25) * min(size)
        low = 0.1 if name == 'star' else 0.5
        centre = rng.uniform(0.1, 0.9) * width, rng.uniform(low, low + 0.4) * height
        _draw_object(pen, name, centre, radius)
    return np.array(canvas)


def _draw_object(
    pen: ImageDraw.ImageDraw, name: str, centre: tuple[float, float], radius: float
) -> None:
    x, y = centre
    fill = CLASSES.index(name)
    if name == 'ball':
        pen.ellipse((x - radius, y - radius, x + radius, y + radius), fill=fill)
    elif name == 'box':
        pen.rectangle((x - radius, y - 0.8 * radius, x + radius, y + 0.8 * radius), fill=fill)
    elif name == 'tree':
        corners = [(x - radius, y + radius), (x, y - 1.6 * radius), (x + radius, y + radius)]
        pen.polygon(corners, fill=fill)
    else:
        angles = np.arange(10) * np.pi / 5 - np.pi / 2
        reach = radius * np.where(np.arange(10) % 2 == 0, 1.0, 0.45)
        tips = zip(x + reach * np.cos(angles), y + reach * np.sin(angles), strict=True)
        pen.polygon([(float(a), float(b)) for a, b in tips], fill=fill)


def write_toy_data(
    root: str | Path,
    num_train: int = 160,
    num_val: int = 24,
    seed: int = 0,
    sides: tuple[int, int] = (96, 160),
) -> Path:
    """Write the scenes as PNG files in MMSegmentation's folder layout.

    Folders: images/training, images/validation, annotations/training, annotations/validation.
    Nothing is done where the same data already lie there.

    Args:
        root: Folder to write to.
        num_train: Number of training scenes.
        num_val: Number of validation scenes.
        seed: Equal seeds write equal files.
        sides: Smallest and largest side in pixels.

    Returns:
        The root folder.
    """
    root = Path(root)
    recipe = {'num_train': num_train, 'num_val': num_val, 'seed': seed, 'sides': list(sides)}
    stamp = root / 'recipe.json'
    if stamp.is_file() and json.loads(stamp.read_text()) == recipe:
        return root
    for split, (name, count) in enumerate((('training', num_train), ('validation', num_val))):
        folders = root / 'images' / name, root / 'annotations' / name
        for folder in folders:
            folder.mkdir(parents=True, exist_ok=True)
            for old in folder.glob('scene_*.png'):
                old.unlink()
        for index in range(count):
            rng = np.random.default_rng([seed, split, index])
            height, width = (int(side) for side in rng.integers(sides[0], sides[1] + 1, 2))
            for folder, pixels in zip(folders, render_scene(rng, (height, width)), strict=True):
                Image.fromarray(pixels).save(folder / f'scene_{index:04d}.png')
    stamp.write_text(json.dumps(recipe))
    return root


@DATASETS.register_module()
class ToyShapesDataset(BaseSegDataset):
    """The data that `write_toy_data` writes: eight classes, no ignored pixels."""

    METAINFO: ClassVar[dict[str, Any]] = dict(
        classes=CLASSES, palette=[list(colour) for colour in PALETTE]
    )

    def __init__(self, img_suffix: str = '.png', **kwargs: Any) -> None:
        super().__init__(img_suffix=img_suffix, seg_map_suffix='.png', **kwargs)
