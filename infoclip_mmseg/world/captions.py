"""Captions of scenes and of windows of them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from infoclip_mmseg.world.attributes import WorldSpec

TEMPLATES = (
    '{}',
    'a photo of {}',
    'A photo of {} in the scene',
    'a scene with {}',
)


def caption(
    rng: np.random.Generator, labels: NDArray[np.uint8], spec: WorldSpec, max_named: int = 4
) -> str:
    """A sentence that names what is in a window, the largest object first, the ground last.

    Args:
        rng: Chooses the wording.
        labels: Label map (h, w) of the window.
        spec: The world.
        max_named: Names at most so many classes; what covers less than a fiftieth of the window is
            not named.
    """
    classes, grounds = spec.classes, len(spec.grounds)
    area = np.bincount(labels.ravel(), minlength=len(classes))
    order = [int(i) for i in np.argsort(-area, kind='stable') if area[i] * 50 >= labels.size]
    named = order[:max_named]
    objects = [f'{_article(classes[i])} {classes[i]}' for i in named if i >= grounds]
    floor = [classes[i] for i in named if i < grounds]
    template = TEMPLATES[int(rng.integers(len(TEMPLATES)))]
    if objects and floor:
        return template.format(f'{_listed(objects)} on {_listed(floor)}')
    return template.format(_listed(objects or floor))


def caption_words(spec: WorldSpec) -> list[str]:
    """Texts that together hold every word that captions of this world can hold."""
    return [*(template.format('a an and on') for template in TEMPLATES), ',', *spec.classes]


def _article(name: str) -> str:
    return 'an' if name[0] in 'aeiou' else 'a'


def _listed(names: list[str]) -> str:
    return ' and '.join([', '.join(names[:-1]), names[-1]]) if len(names) > 1 else names[0]
