"""What integrations share: a model by the kind of name that it has."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from infoclip_mmseg.apis.hub import CONFIG_FILE
from infoclip_mmseg.apis.inferencer import DEFAULT_CONFIG, OpenVocabInferencer


def load_inferencer(
    model: str = DEFAULT_CONFIG, weights: str | None = None, **options: Any
) -> OpenVocabInferencer:
    """A model by the name of a config, with its checkpoint, or by a folder or name of the Hub.

    Args:
        model: A name that has a folder with a ``config.json``, or, without weights, 'org/name'
            where no config has this name, is for
            :meth:`~infoclip_mmseg.OpenVocabInferencer.from_pretrained`.
        weights: Checkpoint of a config.
        **options: Of the constructor: ``device``, ``amp`` and so on.
    """
    saved = (Path(model).expanduser() / CONFIG_FILE).is_file()
    if saved and weights is None:
        return OpenVocabInferencer.from_pretrained(model, **options)
    try:
        return OpenVocabInferencer(model, weights, **options)
    except FileNotFoundError:
        if weights is not None or model.count('/') != 1 or model.endswith('.py'):
            raise
        return OpenVocabInferencer.from_pretrained(model, **options)
