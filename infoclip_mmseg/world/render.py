"""Scenes of the composed world: pixels and labels from a random generator.

Legend: H W scene size in pixels.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from infoclip_mmseg.world.attributes import COLOURS, GROUNDS, SHAPES, TEXTURES, Floats, WorldSpec

Range = tuple[float, float]


@dataclass(frozen=True)
class Domain:
    """How scenes look, apart from what is in them. Ranges are drawn from uniformly.

    Args:
        radius: Of objects, pixels.
        crowd: Objects for each 1000 pixels of the scene.
        period: Of textures, pixels.
        contrast: Of the second colour of a texture: 0 none, 1 black or white.
        colour_jitter: Largest shift of an object's colour channels, 0..255.
        brightness: Factor of the light.
        tint: Largest relative difference of the light's channels.
        slope: Largest relative change of the light from the middle of the scene to its edge.
        noise: Standard deviation of the pixel noise, 0..255.
    """

    radius: Range = (12.0, 20.0)
    crowd: Range = (0.8, 1.5)
    period: Range = (4.5, 6.5)
    contrast: Range = (0.45, 0.75)
    colour_jitter: float = 22.0
    brightness: Range = (0.75, 1.1)
    tint: float = 0.08
    slope: float = 0.25
    noise: Range = (3.0, 10.0)


DOMAINS = {
    'base': Domain(),
    'shifted': Domain(
        radius=(9.0, 24.0),
        period=(4.0, 8.0),
        contrast=(0.35, 0.6),
        colour_jitter=30.0,
        brightness=(0.5, 0.8),
        tint=0.2,
        slope=0.45,
        noise=(10.0, 18.0),
    ),
    'large': Domain(radius=(24.0, 40.0), crowd=(0.2, 0.375), period=(9.0, 13.0)),
}
"""The world as it is; under other light with other textures and object sizes; and at twice the
size, where 128 x 128 pixels hold what 64 x 64 of the first do."""


class Scene(NamedTuple):
    """A drawn scene: image (H, W, 3) RGB 0..255, labels (H, W), and owners (H, W).

    These are the numbers of the objects that are seen there, in the order in which they were drawn;
    -1 for the ground.
    """

    image: NDArray[np.uint8]
    labels: NDArray[np.uint8]
    owners: NDArray[np.int16]


def scene_rng(seed: int, split: str, index: int) -> np.random.Generator:
    """Generator of one scene: the same in every process, another one for any other argument."""
    return np.random.default_rng([seed, zlib.crc32(split.encode()), index])


def render_scene(
    rng: np.random.Generator,
    size: Sequence[int],
    spec: WorldSpec,
    compositions: Sequence[int] | None = None,
    domain: Domain = DOMAINS['base'],
) -> Scene:
    """Draw a scene of H and W pixels, 16 or more each; a ValueError for smaller ones.

    ``compositions`` are indices into ``spec.compositions`` of those that may occur; None: all of
    them, none: a ValueError.
    """
    height, width = size
    if min(height, width) < 16:
        raise ValueError(f'a scene is at least 16 x 16 pixels, got {height} x {width}')
    allowed = range(len(spec.compositions)) if compositions is None else compositions
    if not len(allowed):
        raise ValueError('no composition may occur: compositions is empty')
    canvas, labels = _draw_grounds(rng, (height, width), spec, domain)
    owners = np.full((height, width), -1, np.int16)
    count = max(1, round(rng.uniform(*domain.crowd) * height * width / 1000))
    for number in range(count):
        composition = int(rng.choice(allowed))
        cut, mask = _draw_object(rng, canvas, spec, composition, domain)
        labels[cut][mask] = len(spec.grounds) + composition
        owners[cut][mask] = number
    return Scene(_light(rng, canvas, domain), labels, owners)


def _draw_grounds(
    rng: np.random.Generator, size: tuple[int, int], spec: WorldSpec, domain: Domain
) -> tuple[Floats, NDArray[np.uint8]]:
    """Two grounds with a wavy border between them."""
    height, width = size
    y, x = np.indices((height, width), dtype=np.float32)
    angle, phase = rng.uniform(0, 2 * np.pi, 2)
    across = np.cos(angle) * (x - width / 2) + np.sin(angle) * (y - height / 2)
    along = -np.sin(angle) * x + np.cos(angle) * y
    border = rng.uniform(-0.25, 0.25) * min(size) + 3 * np.sin(along / 7 + phase)
    second = across > border
    canvas = np.empty((height, width, 3), np.float32)
    labels = np.empty((height, width), np.uint8)
    for index, mask in zip(rng.permutation(len(spec.grounds))[:2], (~second, second)):
        name = spec.grounds[index]
        colour = _jittered(rng, GROUNDS[name], domain)
        pattern = _ground_pattern(rng, name, y, x)
        np.copyto(canvas, colour * (1 + pattern[..., None]), where=mask[..., None])
        labels[mask] = index
    return canvas, labels


def _ground_pattern(rng: np.random.Generator, name: str, y: Floats, x: Floats) -> Floats:
    """Relative change of a ground's brightness, (h, w), at coordinates (h, w) in pixels."""
    a, b = rng.uniform(0, 6.28, 2)
    grain = rng.standard_normal(y.shape, dtype=np.float32)
    if name == 'bricks':
        row = np.floor(y / 5)
        joint = (y % 5 < 1) | ((x + 5 * (row % 2)) % 10 < 1)
        return np.where(joint, 0.45, 0.06 * grain).astype(np.float32)
    if name == 'sand':
        return np.float32(0.13) * grain
    if name == 'grass':
        blades = grain + np.roll(grain, 1, 0) + np.roll(grain, 2, 0) + np.roll(grain, 3, 0)
        return np.float32(0.11) * blades
    if name == 'water':
        return (0.16 * np.sin(0.9 * y + 1.5 * np.sin(0.25 * x + a) + b)).astype(np.float32)
    if name == 'heather':
        blots = grain + np.roll(grain, 1, 0) + np.roll(grain, 1, 1) + np.roll(grain, 1, (0, 1))
        return np.where(blots > 1, 0.35, -0.1).astype(np.float32)
    # Snow.
    drifts = 0.07 * np.sin(0.2 * x + a) * np.sin(0.17 * y + b) - 0.03
    pits = grain + np.roll(grain, 1, 0) > 1.8  # a plain white object has none
    return np.where(pits, drifts - 0.2, drifts).astype(np.float32)


def _draw_object(
    rng: np.random.Generator, canvas: Floats, spec: WorldSpec, composition: int, domain: Domain
) -> tuple[tuple[slice, slice], NDArray[np.bool_]]:
    """Draw one object over what is there; returns a part of the canvas and where in it it lies."""
    colour, texture, shape = spec.compositions[composition]
    if shape is None:
        shape = tuple(SHAPES)[int(rng.integers(len(SHAPES)))]
    height, width = canvas.shape[:2]
    radius = rng.uniform(*domain.radius)
    cy, cx = rng.uniform(0.04, 0.96, 2) * (height, width)
    reach = 1.45 * radius  # a square's corner lies at sqrt(2)
    top, left = max(0, int(cy - reach)), max(0, int(cx - reach))
    cut = slice(top, int(cy + reach) + 1), slice(left, int(cx + reach) + 1)
    y, x = np.ogrid[: canvas[cut].shape[0], : canvas[cut].shape[1]]
    dy, dx = (y + (top - cy)).astype(np.float32), (x + (left - cx)).astype(np.float32)
    turn = rng.uniform(0, 2 * np.pi)
    cos, sin = np.cos(turn) / radius, np.sin(turn) / radius
    mask = SHAPES[shape](cos * dx + sin * dy, cos * dy - sin * dx)

    base = _jittered(rng, COLOURS[colour], domain)
    contrast = rng.uniform(*domain.contrast)
    white = base.min() < 150 and rng.random() < 0.5  # never on colours that are light already
    accent = base + contrast * ((255 if white else 0) - base)
    second = object_pattern(rng, texture, dy, dx, rng.uniform(*domain.period))
    np.copyto(canvas[cut], np.where(second[..., None], accent, base), where=mask[..., None])
    return cut, mask


def object_pattern(
    rng: np.random.Generator, texture: str, y: Floats, x: Floats, period: float
) -> NDArray[np.bool_]:
    """Where the second colour of a texture goes, (h, w).

    Angle and phase are random; coordinates (h, 1) and (1, w) and period are in pixels.
    """
    angle = rng.uniform(0, np.pi)
    offset_p, offset_q = rng.uniform(0, 1, 2)
    cos, sin = np.cos(angle) / period, np.sin(angle) / period
    p = (cos * x + sin * y + offset_p) % 1
    q = (cos * y - sin * x + offset_q) % 1
    return TEXTURES[texture](p, q)


def _jittered(rng: np.random.Generator, colour: Sequence[int], domain: Domain) -> Floats:
    shift = rng.uniform(-domain.colour_jitter, domain.colour_jitter, 3)
    return (np.asarray(colour) + shift).astype(np.float32)


def _light(rng: np.random.Generator, canvas: Floats, domain: Domain) -> NDArray[np.uint8]:
    """Brightness, colour and slope of the light, then noise."""
    height, width = canvas.shape[:2]
    slope_y, slope_x = rng.uniform(-domain.slope, domain.slope, 2)
    y = np.linspace(-1, 1, height, dtype=np.float32)[:, None]
    x = np.linspace(-1, 1, width, dtype=np.float32)[None]
    light = rng.uniform(*domain.brightness) * (1 + 0.5 * slope_y * y + 0.5 * slope_x * x)
    tint = (1 + rng.uniform(-domain.tint, domain.tint, 3)).astype(np.float32)
    noise = rng.standard_normal(canvas.shape, dtype=np.float32) * rng.uniform(*domain.noise)
    lit = canvas * light[..., None].astype(np.float32) * tint + noise.astype(np.float32)
    return lit.clip(0, 255).astype(np.uint8)
