"""Class names, synonyms and templates to prompt strings (pure functions)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

DEFAULT_TEMPLATES = ('A photo of a {} in the scene',)
SYNONYM_MODES = ('first', 'average')


class PromptSet(NamedTuple):
    """Prompts of a vocabulary; hashable, so it can key a cache.

    Attributes:
        texts: All prompt strings.
        owners: For each string the slot ``class * P + template`` whose embedding it contributes to.
        num_classes: T.
        num_templates: P, prompts of a class after synonyms have been averaged.
    """

    texts: tuple[str, ...]
    owners: tuple[int, ...]
    num_classes: int
    num_templates: int


def split_synonyms(name: str) -> list[str]:
    """``'car, automobile'`` -> ``['car', 'automobile']``; empty parts are dropped."""
    return [part.strip() for part in name.split(',') if part.strip()]


def check_names(names: Sequence[str]) -> tuple[str, ...]:
    """Class names as a tuple of strings.

    Raises:
        TypeError: ``names`` is one string, or holds something that is not a string.
        ValueError: ``names`` is empty or holds a name without letters.
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


def check_templates(templates: Sequence[str]) -> tuple[str, ...]:
    """Templates as a tuple.

    Raises:
        ValueError: There is none, or one does not contain ``{}`` exactly once.
    """
    templates = (templates,) if isinstance(templates, str) else tuple(templates)
    if not templates or any(template.count('{}') != 1 for template in templates):
        raise ValueError(
            'templates must be a list of strings with one {} each for the class name, '
            f'such as {DEFAULT_TEMPLATES[0]!r}; got {templates!r}'
        )
    return templates


def build_prompts(
    names: Sequence[str],
    templates: Sequence[str] = DEFAULT_TEMPLATES,
    synonyms: str = 'first',
) -> PromptSet:
    """Prompts of a vocabulary.

    Args:
        names: T class names; one name may hold comma-separated synonyms.
        templates: P strings with one ``{}`` each.
        synonyms: ``'first'`` uses the first synonym of a class (CAT-Seg), ``'average'`` averages
            the embeddings of all of them for each template.

    Raises:
        TypeError, ValueError: See :func:`check_names` and :func:`check_templates`.
    """
    names, templates = check_names(names), check_templates(templates)
    if synonyms not in SYNONYM_MODES:
        raise ValueError(f'synonyms must be one of {SYNONYM_MODES}, got {synonyms!r}')
    texts, owners = [], []
    for t, name in enumerate(names):
        words = split_synonyms(name)
        for p, template in enumerate(templates):
            for word in words if synonyms == 'average' else words[:1]:
                # str.replace and not str.format: a class name may contain braces.
                texts.append(template.replace('{}', word))
                owners.append(t * len(templates) + p)
    return PromptSet(tuple(texts), tuple(owners), len(names), len(templates))
