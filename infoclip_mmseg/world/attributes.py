"""What the composed world is made of: colours, textures, shapes, grounds; names and captions."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Pattern = Callable[[Floats, Floats], NDArray[np.bool_]]

COLOURS: dict[str, tuple[int, int, int]] = {
    'red': (205, 45, 45),
    'yellow': (225, 190, 40),
    'green': (55, 150, 60),
    'blue': (45, 90, 195),
    'purple': (140, 60, 165),
    'white': (222, 222, 216),
}
"""RGB, 0..255."""

TEXTURES: dict[str, Pattern] = {
    'plain': lambda p, q: p < 0,
    'striped': lambda p, q: p < 0.5,
    'checked': lambda p, q: (p < 0.5) ^ (q < 0.5),
    'dotted': lambda p, q: (p - 0.5) ** 2 + (q - 0.5) ** 2 < 0.1,
}
"""Where the second colour goes, by the place 0..1 within a period in two directions."""

SHAPES: dict[str, Pattern] = {
    'disc': lambda u, v: u * u + v * v < 0.92,
    'cross': lambda u, v: (np.minimum(abs(u), abs(v)) < 0.38) & (np.maximum(abs(u), abs(v)) < 1),
    'triangle': lambda u, v: (v > -0.65) & (1.75 * abs(u) + v < 1.1),
    'square': lambda u, v: np.maximum(abs(u), abs(v)) < 0.85,
    'ring': lambda u, v: (u * u + v * v < 1.1) & (u * u + v * v > 0.2),
}
"""Which points lie inside an outline of radius 1 around the origin."""

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
CAPTIONS = ('{}', 'a photo of {}', 'A photo of {} in the scene', 'a scene with {}')


@dataclass(frozen=True)
class WorldSpec:
    """Attributes of a world.

    Args:
        colours: Names from ``COLOURS``.
        textures: Names from ``TEXTURES``.
        shapes: Names from ``SHAPES`` that are part of a class. Empty: objects have any of all
            outlines, and the outline means nothing.
        grounds: Names from ``GROUNDS``.
        num_seen, split_seed: How many compositions are seen in fine-tuning, and which ones.

    Raises:
        ValueError: An unknown or repeated name, fewer than two grounds, or an impossible
            ``num_seen``.
    """

    colours: tuple[str, ...] = tuple(COLOURS)
    textures: tuple[str, ...] = tuple(TEXTURES)
    shapes: tuple[str, ...] = ()
    grounds: tuple[str, ...] = tuple(GROUNDS)
    num_seen: int = 12
    split_seed: int = 0

    def __post_init__(self) -> None:
        known: dict = dict(colours=COLOURS, textures=TEXTURES, shapes=SHAPES, grounds=GROUNDS)
        for field, table in known.items():
            names, values = tuple(table), tuple(getattr(self, field))
            object.__setattr__(self, field, values)
            if set(values) - set(names) or len(set(values)) < len(values):
                raise ValueError(f'{field} must be different names out of {names}, got {values}')
        if not (self.colours and self.textures and len(self.grounds) > 1):
            raise ValueError('a world needs a colour, a texture and two grounds at least')
        if not 1 <= self.num_seen < len(self.compositions):
            raise ValueError(
                f'num_seen={self.num_seen} of {len(self.compositions)} compositions: expected 1 or '
                'more, and at least one that is unseen'
            )

    @property
    def compositions(self) -> list[tuple[str, str, str | None]]:
        """Colour, texture and shape (None where the outline means nothing) of each class."""
        return list(itertools.product(self.colours, self.textures, self.shapes or (None,)))

    @property
    def classes(self) -> tuple[str, ...]:
        """All class names: the grounds first, then the compositions."""
        return (*self.grounds, *(compose(*parts) for parts in self.compositions))


def compose(colour: str, texture: str, shape: str | None) -> str:
    """Name of a composition."""
    return f'{colour} {texture} {shape or "object"}'


def world_palette(spec: WorldSpec) -> list[list[int]]:
    """Colours [r, g, b], 0..255, that recall what the classes look like, in their order.

    Grounds are greyed. Objects have their colour, made lighter or darker by texture and shape, so
    that a picture of labels tells the two apart.
    """

    def mixed(colour: Sequence[int], grey: int, share: float) -> list[int]:
        return [round((1 - share) * channel + share * grey) for channel in colour]

    grounds = [mixed(GROUNDS[name], 70, 0.55) for name in spec.grounds]
    kinds = list(itertools.product(spec.textures, spec.shapes or (None,)))
    shades = np.linspace(0.45, -0.55, len(kinds)).tolist()  # towards white if positive, else black
    objects = []
    for colour, texture, shape in spec.compositions:
        shade = shades[kinds.index((texture, shape))]
        objects.append(mixed(COLOURS[colour], 255 if shade > 0 else 0, abs(shade)))
    return grounds + objects


def seen_compositions(spec: WorldSpec) -> list[int]:
    """Indices into ``spec.compositions`` of those that are seen in fine-tuning, sorted.

    Every attribute is seen, and then pairs of attributes, as far as ``num_seen`` allows: in a
    shuffled order each pick is the one with most attributes, then pairs, that no earlier pick had.
    """
    compositions = [list(enumerate(parts)) for parts in spec.compositions]
    order = np.random.default_rng(spec.split_seed).permutation(len(compositions)).tolist()
    seen: list[int] = []
    values: set[tuple] = set()
    pairs: set[tuple] = set()

    def gain(index: int) -> tuple[int, int]:
        new_pairs = set(itertools.combinations(compositions[index], 2)) - pairs
        return len(set(compositions[index]) - values), len(new_pairs) if spec.shapes else 0

    while len(seen) < spec.num_seen:
        best = max(order, key=gain)
        order.remove(best)
        seen.append(best)
        values.update(compositions[best])
        pairs.update(itertools.combinations(compositions[best], 2))
    return sorted(seen)


def seen_classes(spec: WorldSpec) -> tuple[str, ...]:
    """Names of the classes that are seen in fine-tuning: all grounds and the seen compositions."""
    compositions = spec.compositions
    return (*spec.grounds, *(compose(*compositions[index]) for index in seen_compositions(spec)))


def distractor_names(spec: WorldSpec, count: int) -> tuple[str, ...]:
    """Names that never occur in a scene: everyday words and compositions with unknown attributes.

    A ValueError where there are not so many.
    """
    shapes = (*(spec.shapes or ('object',)), *OTHER_SHAPES)
    textures, colours = (*spec.textures, *OTHER_TEXTURES), (*spec.colours, *OTHER_COLOURS)
    others = (compose(c, t, s) for s, t, c in itertools.product(shapes, textures, colours))
    names = [*EVERYDAY, *(name for name in others if name not in set(spec.classes))]
    if not 0 <= count <= len(names):
        raise ValueError(f'there are {len(names)} distractors, got num_distractors={count}')
    order = np.random.default_rng(0).permutation(len(names))
    return tuple(names[index] for index in order[:count])


def caption(
    rng: np.random.Generator, labels: NDArray[np.uint8], spec: WorldSpec, max_named: int = 4
) -> str:
    """A sentence that names what is in a window, the largest object first, the ground last.

    What covers less than a fiftieth of its labels (h, w) is not named, nor more classes than
    ``max_named``.
    """
    classes, grounds = spec.classes, len(spec.grounds)
    area = np.bincount(labels.ravel(), minlength=len(classes))
    order = [int(i) for i in np.argsort(-area, kind='stable') if area[i] * 50 >= labels.size]
    named = order[:max_named]
    names = [classes[i] for i in named if i >= grounds]
    objects = [f'{"an" if name[0] in "aeiou" else "a"} {name}' for name in names]
    floor = [classes[i] for i in named if i < grounds]
    template = CAPTIONS[int(rng.integers(len(CAPTIONS)))]
    return template.format(' on '.join(_listed(names) for names in (objects, floor) if names))


def caption_words(spec: WorldSpec) -> list[str]:
    """Texts that together hold every word that captions of this world can hold."""
    return [*(template.format('a an and on') for template in CAPTIONS), ',', *spec.classes]


def _listed(names: list[str]) -> str:
    return ' and '.join([', '.join(names[:-1]), names[-1]]) if len(names) > 1 else names[0]
