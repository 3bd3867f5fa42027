"""Example images of the composed world, drawn when the page starts."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from PIL import Image

from infoclip_mmseg.world import WorldSpec, render_scene, scene_rng

SCENES = (1, 4, 7, 12)
SIDE = 64
"""Pixels: the size at which the small CLIP has learned its objects."""
ENLARGED = 6


class Example(NamedTuple):
    """An image file and the words for it, one a line."""

    path: Path
    words: str


def draw_examples(folder: Path) -> list[Example]:
    """Draw scenes into a folder as PNG, with the names of all that they hold and two more."""
    spec = WorldSpec()
    examples = []
    for number, index in enumerate(SCENES):
        scene = render_scene(scene_rng(5, 'test', index), (SIDE, SIDE), spec)
        image = Image.fromarray(scene.image)
        image = image.resize((SIDE * ENLARGED, SIDE * ENLARGED), Image.Resampling.NEAREST)
        path = folder / f'scene_{number + 1}.png'
        image.save(path)
        present = sorted({int(label) for label in scene.labels.ravel()})
        absent = [i for i in range(len(spec.classes)) if i not in present][::7][:2]
        examples.append(Example(path, '\n'.join(spec.classes[i] for i in [*present, *absent])))
    return examples
