"""Vocabulary: names, prompts, colours and the value of unlabelled pixels."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from infoclip_mmseg.models.text.prompts import (
    DEFAULT_TEMPLATES,
    PromptSet,
    build_prompts,
    check_templates,
)
from infoclip_mmseg.utils.palette import make_palette


class Vocabulary:
    """The words that a segmentor labels pixels with; at first there are none.

    ``meta`` has ``classes`` and ``palette``, perhaps ``ignore_index``, as a data set's metainfo;
    None where there are no words. ``templates`` and ``synonyms`` are those of
    :func:`build_prompts`; the error that there are no words names the ``owner``.
    """

    def __init__(
        self,
        templates: str | Sequence[str] = DEFAULT_TEMPLATES,
        synonyms: str = 'first',
        owner: str = 'the model',
    ) -> None:
        self.templates, self.synonyms = check_templates(templates), synonyms
        self.meta: dict | None = None
        self._prompts: PromptSet | None = None
        self._owner = owner

    def set(
        self,
        names: Sequence[str],
        palette: Sequence[Sequence[int]] | None = None,
        ignore_index: int | None = None,
        things: Sequence[int] | None = None,
    ) -> None:
        """Take these words from now on; see :meth:`VocabularyOwner.set_vocabulary`."""
        self._prompts = build_prompts(names, self.templates, self.synonyms)
        palette = palette if palette and len(palette) == len(names) else make_palette(len(names))
        self.meta = dict(classes=tuple(names), palette=[list(colour) for colour in palette])
        if ignore_index is not None:
            self.meta['ignore_index'] = ignore_index
        if things is not None:
            self.meta['things'] = list(things)

    @property
    def prompts(self) -> PromptSet:
        """Prompts of the words; a RuntimeError where there are none."""
        if self._prompts is None:
            raise RuntimeError(
                f'{self._owner} has no vocabulary yet: add dict(type="VocabularyHook") to '
                'custom_hooks, or call model.set_vocabulary([...]) with the class names'
            )
        return self._prompts

    @property
    def num_classes(self) -> int:
        """T; 0 where there are no words."""
        return 0 if self._prompts is None else self._prompts.num_classes

    @property
    def names(self) -> tuple[str, ...]:
        """The T names; none where there are no words."""
        return tuple((self.meta or {}).get('classes', ()))

    @property
    def word_counts(self) -> tuple[int, ...]:
        """Words of each class; empty where each has one, or there are no words."""
        return () if self._prompts is None else self._prompts.word_counts

    @property
    def ignore_index(self) -> int | None:
        """Value of pixels without a label; None where the words came without one."""
        return (self.meta or {}).get('ignore_index')

    @contextmanager
    def swapped(self, names: Sequence[str] | None) -> Iterator[None]:
        """Other words while the context lasts; None keeps the present ones."""
        kept = self._prompts, self.meta
        try:
            if names is not None:
                self.set(names)
            yield
        finally:
            self._prompts, self.meta = kept


class VocabularyOwner:
    """What mmseg, hooks and users ask of a model with a ``vocabulary``; a base of segmentors."""

    vocabulary: Vocabulary

    def set_vocabulary(
        self,
        names: Sequence[str],
        palette: Sequence[Sequence[int]] | None = None,
        ignore_index: int | None = None,
        things: Sequence[int] | None = None,
    ) -> None:
        """Label pixels with these names from now on; an error leaves the present ones.

        Args:
            names: T class names; a name may hold comma-separated synonyms.
            palette: T colours [r, g, b], 0..255; made up where None or of another number.
            ignore_index: Value of pixels without a label in the label maps that go with the names;
                None takes that of the model's config.
            things: Indices of the names whose objects panoptic output tells apart; None: unknown,
                and none are.
        """
        kept = dict(vars(self.vocabulary))
        try:
            self.vocabulary.set(names, palette, ignore_index, things)
            self.follow_vocabulary()
        except BaseException:
            vars(self.vocabulary).update(kept)
            raise

    def follow_vocabulary(self) -> None:
        """Set what depends on the words; nothing here."""

    @property
    def dataset_meta(self) -> dict | None:
        """``classes``, ``palette``, perhaps ``ignore_index``; assigning it sets the vocabulary."""
        return self.vocabulary.meta

    @dataset_meta.setter
    def dataset_meta(self, meta: dict | None) -> None:
        if meta and meta.get('classes'):
            names = meta.get('prompt_names') or meta['classes']
            self.set_vocabulary(
                names, meta.get('palette'), meta.get('ignore_index'), meta.get('things')
            )

    @property
    def prompts(self) -> PromptSet:
        """Prompts of the current vocabulary; a RuntimeError where there is none."""
        return self.vocabulary.prompts
