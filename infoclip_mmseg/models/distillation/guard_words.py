"""Guard words: what the relation maps of teacher and student are of, besides the training classes.

A loss on relation maps of the training classes holds the alignment with those alone. Other words
hold the rest of the text space, and training labels say nothing against them.

Legend: T classes.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from infoclip_mmseg.models.text.encoder import Tokenizer
from infoclip_mmseg.models.text.prompts import (
    DEFAULT_TEMPLATES,
    PromptSet,
    build_prompts,
    check_names,
)
from infoclip_mmseg.utils.files import first_few


class GuardWords:
    """Words in place of the training classes, and their prompts.

    ``words`` is a list of names, or what :class:`~infoclip_mmseg.engine.VocabularyHook` turns into
    one before training: the name of a vocabulary or its file. Templates and synonyms are those of
    the vocabulary.
    """

    def __init__(
        self,
        words: Sequence[str] | str,
        templates: str | Sequence[str] = DEFAULT_TEMPLATES,
        synonyms: str = 'first',
    ) -> None:
        self._templates = templates
        self._synonyms = 'first' if synonyms == 'max' else synonyms  # one embedding a word
        self.words = words

    @property
    def words(self) -> Sequence[str] | str:
        """The names, or the vocabulary that is still to be read."""
        return self._words

    @words.setter
    def words(self, words: Sequence[str] | str) -> None:
        self._words = words if isinstance(words, str) else check_names(words)
        self._checked: tuple[PromptSet, Tokenizer] | None = None

    def prompts(self, classes: PromptSet, tokenizer: Tokenizer) -> PromptSet:
        """Prompts of the words, beside those of the training classes.

        A vocabulary that was not read is a RuntimeError, a word that is a training class to CLIP a
        ValueError.
        """
        if isinstance(self._words, str):
            raise RuntimeError(
                f'the guard words {self._words!r} were not read: add dict(type="VocabularyHook") '
                'to custom_hooks, or give them as a list of names'
            )
        prompts = build_prompts(self._words, self._templates, self._synonyms)
        if self._checked != (classes, tokenizer):
            same = [repr(name) for name in self.among(classes, tokenizer)]
            if same:
                raise ValueError(
                    f'{len(same)} of {len(self._words)} guard words are training classes to CLIP '
                    f'({first_few(same)}): the same tokens. Guard words are for what the labels '
                    'say nothing of: leave these out, or take guard_words=None for the training '
                    'classes themselves'
                )
            self._checked = classes, tokenizer
        return prompts

    def among(self, classes: PromptSet, tokenizer: Tokenizer) -> list[str]:
        """The words that have the tokens of a training class; case and spaces don't count."""
        taken = set(_rows(classes, tokenizer))
        rows = _rows(build_prompts(self._words, self._templates, 'first'), tokenizer)
        step = len(rows) // len(self._words)
        return [word for word, row in zip(self._words, rows[::step]) if row in taken]


def _rows(prompts: PromptSet, tokenizer: Tokenizer) -> list[bytes]:
    return [row.tobytes() for row in np.asarray(tokenizer(list(prompts.texts)))]
