"""Outlines and textures of the composed world, as functions of coordinates.

Legend: h w size of a patch of the scene in pixels.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]


def inside(shape: str, u: Floats, v: Floats) -> NDArray[np.bool_]:
    """Which points lie inside an outline of radius 1 around the origin.

    Args:
        shape: A name from ``SHAPES``.
        u, v: Coordinates (h, w).

    Raises:
        ValueError: Unknown shape.
    """
    far, near = np.maximum(abs(u), abs(v)), np.minimum(abs(u), abs(v))
    if shape == 'disc':
        return u * u + v * v < 0.92
    if shape == 'square':
        return far < 0.85
    if shape == 'cross':
        return (near < 0.38) & (far < 1)
    if shape == 'triangle':
        return (v > -0.65) & (1.75 * abs(u) + v < 1.1)
    if shape == 'ring':
        r2 = u * u + v * v
        return (r2 < 1.1) & (r2 > 0.2)
    raise ValueError(f'unknown shape {shape!r}')


def object_pattern(
    rng: np.random.Generator, texture: str, y: Floats, x: Floats, period: float
) -> NDArray[np.bool_]:
    """Where the second colour of a texture goes, (h, w).

    Args:
        rng: For the angle and the phase.
        texture: A name from ``TEXTURES``.
        y, x: Coordinates in pixels, (h, 1) and (1, w).
        period: In pixels.

    Raises:
        ValueError: Unknown texture.
    """
    angle = rng.uniform(0, np.pi)
    offset_p, offset_q = rng.uniform(0, 1, 2)
    cos, sin = np.cos(angle) / period, np.sin(angle) / period
    p = (cos * x + sin * y + offset_p) % 1
    if texture == 'plain':
        return np.zeros(p.shape, bool)
    if texture == 'striped':
        return p < 0.5
    q = (cos * y - sin * x + offset_q) % 1
    if texture == 'checked':
        return (p < 0.5) ^ (q < 0.5)
    if texture == 'dotted':
        return (p - 0.5) ** 2 + (q - 0.5) ** 2 < 0.1
    raise ValueError(f'unknown texture {texture!r}')


def ground_pattern(rng: np.random.Generator, name: str, y: Floats, x: Floats) -> Floats:
    """Relative change of a ground's brightness, (h, w).

    Args:
        rng: For phases and grains.
        name: A name from ``GROUNDS``.
        y, x: Coordinates in pixels, (h, w).

    Raises:
        ValueError: Unknown ground.
    """
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
    if name == 'snow':
        drifts = 0.07 * np.sin(0.2 * x + a) * np.sin(0.17 * y + b) - 0.03
        pits = grain + np.roll(grain, 1, 0) > 1.8  # a plain white object has none
        return np.where(pits, drifts - 0.2, drifts).astype(np.float32)
    raise ValueError(f'unknown ground {name!r}')
