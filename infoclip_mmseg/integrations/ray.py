"""Segmentation as a step of Ray Data: many images on many machines, by an engine made for it.

    import ray
    from infoclip_mmseg.integrations.ray import SegmentImages

    images = ray.data.read_parquet('images.parquet')  # a column `path`, or `bytes`
    options = dict(classes='cat; dog', model='FOLDER')
    found = images.map_batches(
        SegmentImages, fn_constructor_kwargs=options, batch_size=8, concurrency=4, num_gpus=1
    )
    found.write_parquet('found')

Ray restarts what dies and gives each batch to another worker. Needs: pip install "ray[data]".
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from infoclip_mmseg.apis.inferencer import DEFAULT_CONFIG
from infoclip_mmseg.apis.words import Background
from infoclip_mmseg.integrations.loading import load_inferencer
from infoclip_mmseg.utils.images import ImageError, read_image


class SegmentImages:
    """A class for ``map_batches``, one model a worker.

    Args:
        classes, background: As of :meth:`~infoclip_mmseg.OpenVocabInferencer.stream`.
        model, weights: See :func:`~infoclip_mmseg.integrations.loading.load_inferencer`.
        keep: Columns of a batch that go on beside the results; None: all but ``bytes``.
        **options: ``device``, ``amp`` and so on.
    """

    def __init__(
        self,
        classes: str | Sequence[str],
        background: Background = None,
        model: str = DEFAULT_CONFIG,
        weights: str | None = None,
        keep: Sequence[str] | None = None,
        **options: Any,
    ) -> None:
        self.inferencer = load_inferencer(model, weights, **options)
        self.words = classes, background
        self.names = self.inferencer.plan(classes, background).names
        self.keep = keep

    def __call__(self, batch: Mapping[str, Any]) -> dict[str, Any]:
        """Results of a batch, a row an image.

        Columns: ``areas``, pixels by name; ``segments``, COCO's annotations with run lengths as
        JSON, categories from 1; ``height`` and ``width``; ``error``, empty, or why an image could
        not be read, with zeros beside it. A batch with neither ``bytes`` nor ``path`` is a
        ValueError.
        """
        column = next((name for name in ('bytes', 'path') if name in batch), None)
        if column is None:
            raise ValueError(f'expected a column bytes or path, got {sorted(batch)}')
        rows = [self._empty() for _ in batch[column]]
        images = {}
        for number, value in enumerate(batch[column]):
            try:
                source = bytes(value) if column == 'bytes' else str(value)
                images[number] = read_image(source)[..., ::-1]
            except (ImageError, OSError) as error:
                rows[number]['error'] = str(error)
        results = self.inferencer(list(images.values()), *self.words) if images else []
        for number, found in zip(images, results, strict=True):
            height, width = found.labels.shape
            rows[number].update(height=height, width=width, areas=found.areas.tolist())
            rows[number]['segments'] = json.dumps(found.to_coco_rle())
        kept = [name for name in batch if name != 'bytes'] if self.keep is None else self.keep
        return {
            **{name: batch[name] for name in kept},
            **{name: _column([row[name] for row in rows]) for name in self._empty()},
        }

    def _empty(self) -> dict[str, Any]:
        return dict(height=0, width=0, areas=[0] * len(self.names), segments='[]', error='')


def _column(values: list[Any]) -> Any:
    if values and isinstance(values[0], str):
        return np.array(values, dtype=object)
    return np.array(values, dtype=np.int64)
