"""OpenVocabVisualizer: says that words given to it alone are not what a model labels with."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

from mmseg.registry import VISUALIZERS
from mmseg.visualization import SegLocalVisualizer


@VISUALIZERS.register_module()
class OpenVocabVisualizer(SegLocalVisualizer):
    """mmseg's visualizer, with a warning where words cannot reach the model.

    ``MMSegInferencer(classes=..., palette=...)`` hands both to its visualizer only, after its model
    has been built and has taken the words of its checkpoint; so the model has to be told as well.
    """

    def __init__(self, name: str = 'visualizer', *args: Any, **kwargs: Any) -> None:
        self._told = True
        super().__init__(name, *args, **kwargs)
        self._told = False

    def set_dataset_meta(
        self,
        classes: Sequence[str] | None = None,
        palette: Sequence[Sequence[int]] | None = None,
        dataset_name: str | None = None,
    ) -> None:
        """Take names and colours; see ``SegLocalVisualizer``."""
        told, self._told = self._told, True
        if not told and classes is not None:
            warnings.warn(
                f'classes={list(classes)[:5]} name what is drawn, but the model keeps the words of '
                'its checkpoint and predicts those. Tell it too: '
                'inferencer.model.set_vocabulary(classes, palette), or use OpenVocabInferencer, '
                'whose calls take classes',
                stacklevel=3,
            )
        super().set_dataset_meta(classes, palette, dataset_name)
