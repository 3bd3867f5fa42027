"""The words of a call: classes, background, duplicates, prompts that are too long.

Legend: T classes, N = T or T + 1 names of results (with background).
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from mmengine.logging import print_log
from numpy.typing import NDArray

from infoclip_mmseg.datasets.vocabularies import load_vocabulary
from infoclip_mmseg.models.text.prompts import build_prompts, check_names, split_synonyms
from infoclip_mmseg.utils.files import first_few
from infoclip_mmseg.utils.palette import make_palette

BACKGROUND = 'background'
BACKGROUND_COLOUR = (0, 0, 0)
MAX_NAMES = 65536
"""Names that a label map of 16 bits can tell apart."""

Background = str | Sequence[str] | float | None
Tokenizer = Callable[[list[str]], Any]


@dataclass(frozen=True)
class Words:
    """What pixels are labelled with in one call.

    Attributes:
        classes, background: T names, as the user gave them; words for what is no class, or none.
        threshold: Probability below which a pixel is background, or None.
        names: N names of the results: the classes and, where there is one, the background.
        palette: N colours [r, g, b], 0..255.
        model_names: M different names among classes and background words, asked of the model.
        slots: Name (M,) that each of them stands for in the results.
        owners: Of each class its place (T,) in ``model_names``.
        warnings: What was logged about the words.
    """

    classes: tuple[str, ...]
    background: tuple[str, ...]
    threshold: float | None
    names: tuple[str, ...]
    palette: list[list[int]]
    model_names: tuple[str, ...]
    slots: NDArray[np.int64]
    owners: NDArray[np.int64]
    warnings: tuple[str, ...] = ()


def parse_words(text: str) -> list[str]:
    """``'cat; red car, automobile'`` -> ``['cat', 'red car, automobile']``; empty ones are dropped.

    Words are separated by semicolons or line ends, synonyms of one word by commas.
    """
    return [part.strip() for part in re.split(r'[;\n\r]', text) if split_synonyms(part)]


def load_classes(classes: str | Sequence[str]) -> list[str]:
    """Class names from a list; a string with semicolons; a vocabulary's name; a text or JSON file.

    A string that is none of these is a FileNotFoundError; for others see :func:`check_names`.
    """
    if not isinstance(classes, Sequence):
        raise TypeError(
            "classes must be a list of words, a string 'cat; dog', a vocabulary's name or a file, "
            f'got {classes!r:.200}'
        )
    if isinstance(classes, str) and (';' in classes or '\n' in classes):
        classes = parse_words(classes)
    try:
        return list(check_names(load_vocabulary(classes) if isinstance(classes, str) else classes))
    except FileNotFoundError as error:
        raise FileNotFoundError(
            f"{error}. Words are passed as a list, ['cat', 'dog'], or as 'cat; dog'"
        ) from error


def plan_words(classes: str | Sequence[str], background: Background, model: Any) -> Words:
    """Everything about the words of a call that does not depend on images.

    Names that are one and the same to the model (equal tokens: case, spaces, a common beginning of
    77 tokens) are asked for once, and the first of them gets the pixels; a warning names them.

    Args:
        classes: See :func:`load_classes`.
        background: Words for what is no class (a list, or a string with semicolons), a probability
            threshold, or None. With a single class None means the head's own threshold: otherwise
            every pixel would belong to the class.
        model: The segmentor, for its templates and its tokenizer.
    """
    names = load_classes(classes)
    words, threshold = _read_background(background)
    if len(names) == 1 and not words and threshold is None:
        model.decode_head.check_vocabulary(1)
        threshold = model.decode_head.threshold
    results = [*names, BACKGROUND] if words or threshold is not None else names
    if len(results) > MAX_NAMES:
        raise ValueError(f'{len(results)} names are more than the {MAX_NAMES} of a label map')
    asked = [*names, *words]
    keys, notes = _token_keys(asked, model)
    first: dict[Any, int] = {}
    again = [repr(n[:60]) for i, n in enumerate(asked) if first.setdefault(keys[i], i) != i]
    if again:
        notes.append(
            f'{first_few(again)}: the same to CLIP as a word before; the first of equal words gets '
            'the pixels, the others none'
        )
    for note in notes:
        print_log(note, logger='current', level=logging.WARNING)
    kept, place = list(first.values()), {key: m for m, key in enumerate(first)}
    return Words(
        classes=tuple(names),
        background=tuple(words),
        threshold=threshold,
        names=tuple(results),
        palette=make_palette(len(names)) + [list(BACKGROUND_COLOUR)] * (len(results) > len(names)),
        model_names=tuple(asked[index] for index in kept),
        slots=np.minimum(np.array(kept), len(names)),
        owners=np.array([place[key] for key in keys[: len(names)]]),
        warnings=tuple(notes),
    )


def words_key(classes: Any, background: Any, model: Any) -> tuple[Any, ...] | None:
    """All that the result of :func:`plan_words` depends on; None where a file may be read."""
    if not isinstance(classes, (list, tuple)):
        return None
    ground = tuple(background) if isinstance(background, list) else background
    vocabulary = model.vocabulary
    reading = (vocabulary.templates, vocabulary.synonyms, model.backbone.tokenizer)
    return (tuple(classes), type(background), ground, model.decode_head.threshold, *reading)


def _read_background(background: Background) -> tuple[list[str], float | None]:
    if background is None:
        return [], None
    if isinstance(background, str):
        background = parse_words(background)
    if isinstance(background, bool) or not isinstance(background, (int, float, Sequence)):
        raise TypeError(
            f'background must be None, a list of words or a probability, got {background!r:.200}'
        )
    if isinstance(background, (int, float)):
        if not 0 <= background <= 1:
            raise ValueError(
                f'background={background}: a threshold is a probability, 0..1; words for the '
                "background are passed as a list, ['wall', 'floor']"
            )
        return [], float(background)
    return list(check_names(background)), None


def _token_keys(names: Sequence[str], model: Any) -> tuple[list[tuple[bytes, ...]], list[str]]:
    """What the text tower reads of each name, and a note where that is not all of it."""
    for index, name in enumerate(names):
        if any('\ud800' <= letter <= '\udfff' for letter in name):
            raise ValueError(f'word {index}, {name!r}, is no valid text (it was not read as UTF-8)')
    prompts = build_prompts(names, model.vocabulary.templates, model.vocabulary.synonyms)
    tokenizer = model.backbone.tokenizer
    rows = np.asarray(tokenizer(list(prompts.texts)))
    counts = prompts.word_counts or (1,) * len(names)
    classes = np.repeat(np.arange(len(names)), counts)  # of each word that has embeddings
    encode = getattr(tokenizer, 'encode', None)
    keys: list[tuple[bytes, ...]] = [()] * len(names)
    cut: dict[str, str] = {}  # names that are cut off, as they are shown
    for text, owner, row in zip(prompts.texts, prompts.owners, rows):
        index = int(classes[owner // prompts.num_templates])
        name, keys[index] = names[index], (*keys[index], row.tobytes())
        if row[-1] != 0 and (encode is None or len(encode(text)) + 2 > len(row)):
            cut[name] = f'{name[:60]!r}{"..." if len(name) > 60 else ""}'
    note = (
        f'CLIP reads {rows.shape[1]} tokens of a prompt; what comes after them is not read of '
        f'{first_few([*cut.values()], separator="; ")}'
    )
    return keys, [note] if cut else []
