"""What the composed world is made of: colours, textures, shapes, grounds, and their names."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

COLOURS: dict[str, tuple[int, int, int]] = {
    'red': (205, 45, 45),
    'yellow': (225, 190, 40),
    'green': (55, 150, 60),
    'blue': (45, 90, 195),
    'purple': (140, 60, 165),
    'white': (222, 222, 216),
}
"""RGB, 0..255."""

TEXTURES = ('plain', 'striped', 'checked', 'dotted')
SHAPES = ('disc', 'cross', 'triangle', 'square', 'ring')

GROUNDS: dict[str, tuple[int, int, int]] = {
    'bricks': (190, 75, 65),
    'sand': (215, 188, 95),
    'grass': (75, 150, 65),
    'water': (60, 105, 185),
    'heather': (135, 85, 155),
    'snow': (222, 224, 226),
}
"""RGB, 0..255: one for each colour, so that the colour of a pixel does not tell an object from the
ground it lies on."""

OTHER_COLOURS = ('grey', 'orange', 'brown', 'pink', 'turquoise', 'black')
OTHER_TEXTURES = ('zigzag', 'furry', 'shiny', 'marbled', 'knitted')
OTHER_SHAPES = ('heart', 'star', 'arrow', 'spiral', 'hexagon', 'moon')
EVERYDAY = (
    *('car', 'dog', 'cat', 'bus', 'tree', 'house', 'person', 'bottle', 'chair', 'table'),
    *('book', 'lamp', 'bicycle', 'aeroplane', 'boat', 'train', 'horse', 'sheep', 'cow', 'sofa'),
    *('plant', 'cloud', 'road', 'fence', 'wall', 'window', 'door', 'bridge', 'tower', 'clock'),
)


@dataclass(frozen=True)
class WorldSpec:
    """Attributes of a world.

    Args:
        colours: Names from ``COLOURS``.
        textures: Names from ``TEXTURES``.
        shapes: Names from ``SHAPES`` that are part of a class. Empty: objects have any of all
            outlines, and the outline means nothing.
        grounds: Names from ``GROUNDS``.
        num_seen: How many compositions are seen in fine-tuning.
        split_seed: Which ones.

    Raises:
        ValueError: An unknown or repeated name, fewer than two grounds, or an impossible
            ``num_seen``.
    """

    colours: tuple[str, ...] = tuple(COLOURS)
    textures: tuple[str, ...] = TEXTURES
    shapes: tuple[str, ...] = ()
    grounds: tuple[str, ...] = tuple(GROUNDS)
    num_seen: int = 12
    split_seed: int = 0

    def __post_init__(self) -> None:
        known: dict[str, tuple[str, ...]] = dict(
            colours=tuple(COLOURS), textures=TEXTURES, shapes=SHAPES, grounds=tuple(GROUNDS)
        )
        for field, names in known.items():
            values = tuple(getattr(self, field))
            object.__setattr__(self, field, values)
            if set(values) - set(names) or len(set(values)) < len(values):
                raise ValueError(f'{field} must be different names out of {names}, got {values}')
        if not (self.colours and self.textures and len(self.grounds) > 1):
            raise ValueError('a world needs a colour, a texture and two grounds at least')
        least = max(map(len, (self.colours, self.textures, self.shapes)))
        if not least <= self.num_seen < len(self.compositions):
            raise ValueError(
                f'num_seen={self.num_seen} of {len(self.compositions)} compositions: expected '
                f'{least} or more, so that every colour, texture and shape is seen, and at least '
                'one that is unseen'
            )

    @property
    def compositions(self) -> list[tuple[str, str, str | None]]:
        """Colour, texture and shape (None where the outline means nothing) of each class."""
        return list(itertools.product(self.colours, self.textures, self.shapes or (None,)))

    @property
    def classes(self) -> tuple[str, ...]:
        """All class names: the grounds first, then the compositions."""
        return (*self.grounds, *(compose(*parts) for parts in self.compositions))


def make_spec(overrides: Mapping[str, Any] | None = None) -> WorldSpec:
    """The default world with some fields replaced.

    Raises:
        TypeError: Unknown field.
        ValueError: See :class:`WorldSpec`.
    """
    return replace(WorldSpec(), **(overrides or {}))


def compose(colour: str, texture: str, shape: str | None) -> str:
    """Name of a composition."""
    return f'{colour} {texture} {shape or "object"}'


def world_palette(spec: WorldSpec) -> list[list[int]]:
    """Colours [r, g, b], 0..255, that recall what the classes look like, in their order.

    Grounds are greyed. Objects have their colour, made lighter or darker by texture and shape, so
    that a picture of labels tells the two apart.
    """
    grounds = [_mixed(GROUNDS[name], (70, 70, 70), 0.55) for name in spec.grounds]
    kinds = list(itertools.product(spec.textures, spec.shapes or (None,)))
    shades = np.linspace(0.45, -0.55, len(kinds))  # towards white where positive, else black
    objects = []
    for colour, texture, shape in spec.compositions:
        shade = float(shades[kinds.index((texture, shape))])
        objects.append(_mixed(COLOURS[colour], (255,) * 3 if shade > 0 else (0,) * 3, abs(shade)))
    return grounds + objects


def _mixed(colour: Sequence[int], other: Sequence[int], share: float) -> list[int]:
    return [round((1 - share) * a + share * b) for a, b in zip(colour, other)]


def seen_compositions(spec: WorldSpec) -> list[int]:
    """Indices into ``spec.compositions`` of those that are seen in fine-tuning, sorted.

    Every attribute is seen, and pairs of attributes as far as ``num_seen`` allows: in a shuffled
    order each pick is the one with most attributes, then pairs, that no earlier pick had.
    """
    order = np.random.default_rng(spec.split_seed).permutation(len(spec.compositions)).tolist()
    seen: list[int] = []
    values: set[tuple[int, str | None]] = set()
    pairs: set[tuple[tuple[int, str | None], ...]] = set()
    while len(seen) < spec.num_seen:

        def gain(index: int) -> tuple[int, int]:
            parts = list(enumerate(spec.compositions[index]))
            return (
                len(set(parts) - values),
                len(set(itertools.combinations(parts, 2)) - pairs) if spec.shapes else 0,
            )

        best = max(order, key=gain)
        order.remove(best)
        seen.append(best)
        parts = list(enumerate(spec.compositions[best]))
        values.update(parts)
        pairs.update(itertools.combinations(parts, 2))
    return sorted(seen)


def seen_classes(spec: WorldSpec) -> tuple[str, ...]:
    """Names of the classes that are seen in fine-tuning: all grounds and the seen compositions."""
    compositions = spec.compositions
    return (*spec.grounds, *(compose(*compositions[index]) for index in seen_compositions(spec)))


def distractor_names(spec: WorldSpec, count: int) -> tuple[str, ...]:
    """Names that never occur in a scene: everyday words and compositions with unknown attributes.

    Args:
        spec: The world.
        count: How many.

    Raises:
        ValueError: There are not so many.
    """
    shapes = (*(spec.shapes or ('object',)), *OTHER_SHAPES)
    names = [
        f'{colour} {texture} {shape}'
        for shape in shapes
        for texture in (*spec.textures, *OTHER_TEXTURES)
        for colour in (*spec.colours, *OTHER_COLOURS)
    ]
    known = set(spec.classes)
    names = [*EVERYDAY, *(name for name in names if name not in known)]
    if not 0 <= count <= len(names):
        raise ValueError(f'there are {len(names)} distractors, got num_distractors={count}')
    order = np.random.default_rng(0).permutation(len(names))
    return tuple(names[index] for index in order[:count])
