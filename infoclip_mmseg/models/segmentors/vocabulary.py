"""The vocabulary of a segmentor: names, prompts, colours and the value of unlabelled pixels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from infoclip_mmseg.models.text.prompts import PromptSet, build_prompts
from infoclip_mmseg.utils.palette import make_palette


class VocabularyMixin:
    """Holds the words that a segmentor labels pixels with.

    It expects ``decode_head``, ``data_preprocessor``, ``templates``, ``synonyms``,
    ``_own_ignore``, ``_dataset_meta`` and ``_prompts``, which the segmentor sets.
    """

    decode_head: Any
    data_preprocessor: Any
    templates: tuple[str, ...]
    synonyms: str
    _own_ignore: tuple[int, int | None]
    _dataset_meta: dict | None
    _prompts: PromptSet | None

    def set_vocabulary(
        self,
        names: Sequence[str],
        palette: Sequence[Sequence[int]] | None = None,
        ignore_index: int | None = None,
    ) -> None:
        """Label pixels with these names from now on.

        Args:
            names: T class names; a name may hold comma-separated synonyms.
            palette: T colours [r, g, b], 0..255; made up where None or of another number.
            ignore_index: Value of pixels without a label in the label maps that go with the names;
                None takes that of the decode head's config.

        Raises:
            TypeError, ValueError: The names are no vocabulary; see :func:`build_prompts`.
        """
        self._prompts = build_prompts(names, self.templates, self.synonyms)
        palette = palette if palette and len(palette) == len(names) else make_palette(len(names))
        self._dataset_meta = dict(classes=tuple(names), palette=[list(c) for c in palette])
        if ignore_index is not None:
            self._dataset_meta['ignore_index'] = ignore_index
        self.decode_head.num_classes = len(names)
        self._set_ignore_index(ignore_index)

    def _set_ignore_index(self, value: int | None) -> None:
        """Set the value of unlabelled pixels in losses and checks, and of padded ones."""
        ignored, padded = self._own_ignore if value is None else (value, value)
        self.decode_head.ignore_index = ignored
        if padded is not None:
            self.data_preprocessor.seg_pad_val = padded

    @property
    def dataset_meta(self) -> dict | None:
        """``classes``, ``palette``, perhaps ``ignore_index``; assigning it sets the vocabulary."""
        return self._dataset_meta

    @dataset_meta.setter
    def dataset_meta(self, meta: dict | None) -> None:
        if meta and meta.get('classes'):
            names = meta.get('prompt_names') or meta['classes']
            self.set_vocabulary(names, meta.get('palette'), meta.get('ignore_index'))

    @property
    def prompts(self) -> PromptSet:
        """Prompts of the current vocabulary.

        Raises:
            RuntimeError: No vocabulary has been set.
        """
        if self._prompts is None:
            raise RuntimeError(
                'the model has no vocabulary yet: add dict(type="VocabularyHook") to custom_hooks, '
                'or call model.set_vocabulary([...]) with the class names'
            )
        return self._prompts

    @property
    def out_channels(self) -> int:
        """T of the current vocabulary."""
        return self.decode_head.num_classes
