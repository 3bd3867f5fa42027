"""Panoptic and instance segmentation of own images with own words, by a head that finds masks.

Legend: h w pixels of the image as it is seen (EXIF applied).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from infoclip_mmseg.annotations import Exportable, Region, Regions
from infoclip_mmseg.annotations.formats import coco_rle
from infoclip_mmseg.apis.image_sources import (
    OnError,
    Picture,
    Source,
    list_sources,
    read_pictures,
)
from infoclip_mmseg.apis.loading import run_pipeline
from infoclip_mmseg.apis.prediction import check_options, check_size, save_picture, write_json
from infoclip_mmseg.apis.words import load_classes
from infoclip_mmseg.utils.files import first_few
from infoclip_mmseg.utils.palette import make_palette
from infoclip_mmseg.visualization.overlay import draw_overlay

if TYPE_CHECKING:
    from infoclip_mmseg.apis.inferencer import OpenVocabInferencer

TASKS = ('panoptic', 'instance')
MAX_SEGMENTS = 255
"""Segments that a picture shows and its legend names."""
MAX_MASK_PIXELS = 4_000_000
"""Of larger images the masks are made with so many pixels and then enlarged: all queries have one
of 4 bytes a pixel."""


@dataclass(frozen=True)
class Segments(Exportable):
    """Segments of one image.

    Attributes:
        name, stem: As of a :class:`~infoclip_mmseg.apis.prediction.Prediction`.
        task: 'panoptic', or 'instance', whose segments may overlap.
        ids: (h, w), int32, 0 where there is no segment; of instances the best one of each pixel.
        segments: Of each ``id``, ``class``, ``label`` (its index), ``is_thing``, ``score``,
            ``area`` in pixels; of instances also ``mask`` (h, w), bool.
        classes, things: The names that were asked for, and indices of those that are things.
        visualization: Overlay with outlines and a legend entry a segment, RGB; None unless asked.
    """

    name: str
    stem: str
    task: str
    ids: NDArray[np.int32]
    segments: list[dict[str, Any]]
    classes: tuple[str, ...]
    things: tuple[int, ...]
    visualization: NDArray[np.uint8] | None = field(default=None, repr=False)

    def regions(self) -> Regions:
        """A region a segment."""
        height, width = self.ids.shape
        found = [
            Region(s['label'], s['class'], s.get('mask', self.ids == s['id']), s['score'])
            for s in self.segments
        ]
        return Regions(self.name, self.stem, (height, width), found)

    def to_dict(self) -> dict[str, Any]:
        """What the JSON file holds."""
        height, width = self.ids.shape
        shown = [{**{k: v for k, v in s.items() if k != 'mask'}, **_runs(s)} for s in self.segments]
        return dict(
            image=self.name, height=height, width=width, task=self.task, segments_info=shown
        )


def _runs(segment: dict[str, Any]) -> dict[str, Any]:
    """The mask of an instance, which others may cover, as COCO's run lengths."""
    return dict(segmentation=coco_rle(segment['mask'])) if 'mask' in segment else {}


def find_segments(
    inferencer: OpenVocabInferencer,
    inputs: Any,
    classes: str | Sequence[str],
    things: str | Sequence[str] = 'all',
    task: str = 'panoptic',
    return_vis: bool = False,
    opacity: float = 0.5,
    out_dir: Path | str | None = None,
    frame_step: int = 1,
    on_error: OnError = 'raise',
    **options: Any,
) -> Iterator[Segments]:
    """Segments of images, one image after the other; :meth:`OpenVocabInferencer.segments`.

    Args:
        inferencer: Of a model whose head finds masks; another is a ValueError.
        inputs, classes, return_vis, opacity, frame_step, on_error: As in
            :meth:`OpenVocabInferencer.stream`.
        things: Those classes whose objects are told apart, or 'all'; a name that is no class is a
            ValueError.
        task: 'panoptic': each pixel has at most one segment. 'instance': masks of things.
        out_dir: Folder that gets ``vis/*.jpg``, ``pred/*.png`` (ids as COCO's panoptic PNG: red +
            256 green + 65536 blue) and ``pred/*.json``; for panoptic output ``panoptic.json``, in
            COCO's form, when all images are finished.
        **options: ``score``, ``overlap``, ``top``; see :meth:`MaskClassificationHead.segments`.
    """
    check_options(opacity, on_error)
    if task not in TASKS:
        raise ValueError(f'task must be one of {TASKS}, got {task!r}')
    if not inferencer.model.decode_head.finds_masks:
        raise ValueError(
            f'task {task!r} needs a head that finds masks, such as those of configs/maft-plus; '
            f'this model has a {type(inferencer.model.decode_head).__name__}'
        )
    names = load_classes(classes)
    chosen = names if things == 'all' else load_classes(things)
    unknown = [repr(name) for name in chosen if name not in names]
    if unknown:
        raise ValueError(f'things {first_few(unknown)} are none of the {len(names)} classes')
    indices = sorted({names.index(name) for name in chosen})
    call = dict(task=task, things=indices, **options)
    listed = isinstance(inputs, list) and bool(inputs) and isinstance(inputs[0], Source)
    sources = inputs if listed else list_sources(inputs)
    limits = replace(inferencer.limits, frame_step=frame_step)
    check = partial(check_size, patch=inferencer.model.backbone.patch_size)
    pictures = read_pictures(sources, limits, check, on_error)
    folder = None if out_dir is None else Path(out_dir)
    return _stream(inferencer, pictures, names, call, return_vis, opacity, folder)


def _stream(
    inferencer: OpenVocabInferencer,
    pictures: Iterator[Picture],
    names: list[str],
    call: dict[str, Any],
    return_vis: bool,
    opacity: float,
    folder: Path | None,
) -> Iterator[Segments]:
    listed: dict[str, dict[str, Any]] = {}
    for picture in pictures:
        found = _predict(inferencer, picture, names, call)
        if return_vis or folder is not None:
            found = replace(found, visualization=draw_segments(picture.image, found, opacity))
        if folder is not None:
            save_segments(found, folder)
            listed[found.stem] = found.to_dict()
        yield found if return_vis else replace(found, visualization=None)
    if folder is not None and call['task'] == 'panoptic':
        write_json(folder / 'panoptic.json', coco_panoptic(listed, names, call['things']))


def _predict(
    inferencer: OpenVocabInferencer, picture: Picture, names: list[str], call: dict[str, Any]
) -> Segments:
    model, size = inferencer.model, picture.image.shape[:2]
    scale = min(1.0, (MAX_MASK_PIXELS / (size[0] * size[1])) ** 0.5)
    made = tuple(max(1, round(side * scale)) for side in size)
    item = run_pipeline(
        inferencer.pipeline, np.ascontiguousarray(picture.image[..., ::-1]), picture.name
    )
    with inferencer.predicting():
        model.set_vocabulary(names)
        batch = model.data_preprocessor({key: [item[key]] for key in item}, False)
        images = batch['inputs']
        features, text = model.extract_feat(images), model.embed_vocabulary()
        shape = (images.shape[-2], images.shape[-1])
        [(ids, segments)] = model.decode_head.segments(
            features, text, shape, out_sizes=[made], **call
        )
    ids = _enlarge(ids.to(torch.int32), size)
    for number, segment in enumerate(segments, 1):
        segment['class'] = names[segment['label']]
        if call['task'] == 'instance':
            mask = _enlarge(segment['mask'], size)
            segment.update(id=number, is_thing=True, mask=mask, area=int(mask.sum()))
        elif scale < 1:
            segment['area'] = int((ids == segment['id']).sum())
    for segment in reversed(segments) if call['task'] == 'instance' else ():
        ids[segment['mask']] = segment['id']  # the best one last, above the others
    things = tuple(call['things'])
    return Segments(picture.name, picture.stem, call['task'], ids, segments, tuple(names), things)


def _enlarge(labels: Tensor, size: Sequence[int]) -> NDArray:
    """A map (h', w') of whole numbers or truth values at another size (h, w), on the CPU."""
    rows, columns = (
        torch.arange(n, device=labels.device) * old // n for n, old in zip(size, labels.shape)
    )
    return labels[rows[:, None], columns].cpu().numpy()


def draw_segments(
    image: NDArray[np.uint8], found: Segments, opacity: float = 0.5
) -> NDArray[np.uint8]:
    """An RGB image with its segments in colour, outlined, and a legend of them."""
    shown = found.segments[:MAX_SEGMENTS]
    names = ['no segment', *(f'{s["class"]} {s["score"]:.2f}' for s in shown)]
    palette = [[0, 0, 0], *make_palette(len(shown))]
    labels = np.where(found.ids <= len(shown), found.ids, 0)
    return draw_overlay(image, labels, names, palette, opacity)


def draw_ids(ids: NDArray[np.int32]) -> Image.Image:
    """Ids (h, w) as COCO's panoptic PNG has them: red + 256 green + 65536 blue."""
    return Image.fromarray(np.stack([ids % 256, ids // 256 % 256, ids >> 16], -1).astype(np.uint8))


def save_segments(found: Segments, out_dir: Path) -> None:
    """Write ``pred/STEM.png``, ``pred/STEM.json`` and, if drawn, ``vis/STEM.jpg``."""
    folder = out_dir / 'pred'
    save_picture(draw_ids(found.ids), folder / f'{found.stem}.png')
    if found.visualization is not None:
        picture = Image.fromarray(found.visualization)
        save_picture(picture, out_dir / 'vis' / f'{found.stem}.jpg')
    write_json(folder / f'{found.stem}.json', found.to_dict())


def coco_panoptic(
    results: Mapping[str, Mapping[str, Any]], names: Sequence[str], things: Sequence[int]
) -> dict[str, Any]:
    """Results in COCO's panoptic form: contents of JSON files by stem. Categories count from 1."""
    categories = [
        dict(id=index + 1, name=name, isthing=int(index in things))
        for index, name in enumerate(names)
    ]
    images, annotations = [], []
    for number, (stem, found) in enumerate(results.items(), 1):
        size = dict(height=found['height'], width=found['width'])
        images.append(dict(id=number, file_name=found['image'], **size))
        segments = [
            dict(
                id=s['id'], category_id=s['label'] + 1, area=s['area'], iscrowd=0, score=s['score']
            )
            for s in found['segments_info']
        ]
        annotations.append(dict(image_id=number, file_name=f'{stem}.png', segments_info=segments))
    return dict(images=images, annotations=annotations, categories=categories)
