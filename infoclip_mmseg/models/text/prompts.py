"""Class names, synonyms and templates to prompt strings (pure functions)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import open_clip

DEFAULT_TEMPLATES = ('A photo of a {} in the scene',)
_SIZES = ('small', 'medium', 'large')
TEMPLATE_SETS = {
    'imagenet': tuple(template('{}') for template in open_clip.OPENAI_IMAGENET_TEMPLATES),
    'vild': (
        *('a photo of a {}.', 'This is a photo of a {}', 'There is a {} in the scene'),
        *('There is the {} in the scene', 'a photo of a {} in the scene'),
        *(f'a photo of a {size} {{}}.' for size in _SIZES),
        *(f'This is a photo of a {size} {{}}.' for size in _SIZES),
        *(f'There is a {size} {{}} in the scene.' for size in _SIZES),
    ),
}
"""Named sets of templates: the 80 of CLIP's zero-shot classification on ImageNet, and the 14 of
ViLD, which FC-CLIP and MAFT+ took over."""
SYNONYM_MODES = ('first', 'average', 'max')


class PromptSet(NamedTuple):
    """Prompts of a vocabulary; hashable, so it can key a cache.

    ``owners`` has for each string the slot ``class * P + template`` whose embedding it contributes
    to; with ``word_counts``, ``word * P + template``. These are, where each synonym keeps its own
    embedding, the words of each class, which follow one another; empty where a class has one.
    """

    texts: tuple[str, ...]
    owners: tuple[int, ...]
    num_classes: int  # T
    num_templates: int  # P, prompts of a class after synonyms have been averaged
    word_counts: tuple[int, ...] = ()

    @property
    def num_embeddings(self) -> int:
        """Rows of the text embeddings: T, or the number of words."""
        return sum(self.word_counts) or self.num_classes


def split_synonyms(name: str) -> list[str]:
    """``'car, automobile'`` -> ``['car', 'automobile']``; empty parts are dropped."""
    return [part.strip() for part in name.split(',') if part.strip()]


def check_names(names: Sequence[str]) -> tuple[str, ...]:
    """Class names as a tuple of strings.

    What is no sequence of strings is a TypeError; none at all, or one without letters, a
    ValueError.
    """
    if isinstance(names, str) or not all(isinstance(name, str) for name in names):
        raise TypeError(
            f'a vocabulary is a list of strings, got {names!r:.200}; pass for example '
            "['cat', 'dog, puppy'] (synonyms of one class are separated by commas)"
        )
    if not names:
        raise ValueError('the vocabulary is empty: pass at least one class name')
    for index, name in enumerate(names):
        if not split_synonyms(name):
            raise ValueError(f'class {index} of the vocabulary has no name: got {name!r}')
    return tuple(names)


def check_templates(templates: str | Sequence[str]) -> tuple[str, ...]:
    """Templates, one template or a key of ``TEMPLATE_SETS`` as a tuple.

    None at all, or one that does not contain ``{}`` exactly once, is a ValueError.
    """
    if isinstance(templates, str):
        templates = TEMPLATE_SETS.get(templates, (templates,))
    templates = tuple(templates)
    if not templates or any(template.count('{}') != 1 for template in templates):
        raise ValueError(
            'templates must be a list of strings with one {} each for the class name, '
            f'such as {DEFAULT_TEMPLATES[0]!r}, or one of {sorted(TEMPLATE_SETS)}; got '
            f'{templates!r}'
        )
    return templates


def build_prompts(
    names: Sequence[str],
    templates: str | Sequence[str] = DEFAULT_TEMPLATES,
    synonyms: str = 'first',
) -> PromptSet:
    """Prompts of a vocabulary.

    Args:
        names: T class names; one name may hold comma-separated synonyms.
        templates: P strings with one ``{}`` each, or ``'imagenet'``; see :func:`check_templates`.
        synonyms: ``'first'`` uses the first synonym of a class (CAT-Seg), ``'average'`` averages
            the embeddings of all of them for each template, ``'max'`` gives each its own embedding,
            for a head that takes the best one of a class (:class:`ZeroShotHead`).
    """
    names, templates = check_names(names), check_templates(templates)
    if synonyms not in SYNONYM_MODES:
        raise ValueError(f'synonyms must be one of {SYNONYM_MODES}, got {synonyms!r}')
    words = [split_synonyms(name) for name in names]
    word_counts: tuple[int, ...] = ()
    if synonyms == 'first':
        words = [parts[:1] for parts in words]
    elif synonyms == 'max':
        word_counts = tuple(map(len, words))
        words = [[word] for parts in words for word in parts]
    texts, owners = [], []
    for row, parts in enumerate(words):
        for p, template in enumerate(templates):
            for word in parts:
                # str.replace and not str.format: a class name may contain braces.
                texts.append(template.replace('{}', word))
                owners.append(row * len(templates) + p)
    return PromptSet(tuple(texts), tuple(owners), len(names), len(templates), word_counts)
