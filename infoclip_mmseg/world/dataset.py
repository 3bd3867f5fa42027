"""ComposedWorldDataset: the composed world as an mmseg data set that needs no files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from mmseg.datasets import BaseSegDataset
from mmseg.registry import DATASETS
from numpy.typing import NDArray
from PIL import Image
from rich.progress import track

from infoclip_mmseg.utils.palette import make_palette
from infoclip_mmseg.world.attributes import (
    WorldSpec,
    distractor_names,
    seen_classes,
    seen_compositions,
    world_palette,
)
from infoclip_mmseg.world.render import DOMAINS, Scene, render_scene, scene_rng

IGNORED = 255
LOADING_STEPS = (
    'LoadImageFromFile',
    'LoadAnnotations',
    'LoadLabelMap',
    'LoadPanoptic',
    'CheckInputs',
)


@DATASETS.register_module()
class ComposedWorldDataset(BaseSegDataset):
    """Scenes of objects whose classes are compositions of colour, texture and shape.

    Scene i of a split is the same in every process and at every time. Pipelines are those of other
    data sets: their loading steps (``LoadImageFromFile``, ``LoadLabelMap`` and so on) are left
    out, as images and labels are drawn. ``metainfo`` also holds ``seen_classes``, the names
    that fine-tuning may see.

    Args:
        length: Number of scenes.
        split: 'train', 'val' or 'test': different scenes.
        size: Height and width, pixels.
        objects: 'all' compositions may occur in scenes, or only the 'seen' ones.
        vocabulary: 'all' classes; only 'seen' ones, others become 255; or with 'distractors', names
            that never occur.
        num_distractors: How many of these.
        domain: One of :data:`~infoclip_mmseg.world.render.DOMAINS`.
        seed: Of the scenes.
        spec: Overrides of the world, see :class:`~infoclip_mmseg.world.WorldSpec`.
        kwargs: As in ``BaseSegDataset``: ``pipeline``, ``indices``, ``test_mode`` and so on.

    Unknown options and a size below 16 pixels are a ValueError.
    """

    METAINFO: ClassVar[dict[str, Any]] = dict(
        classes=WorldSpec().classes,
        palette=world_palette(WorldSpec()),
        seen_classes=seen_classes(WorldSpec()),
    )

    def __init__(
        self,
        length: int,
        split: str = 'train',
        size: Sequence[int] = (64, 64),
        objects: str = 'all',
        vocabulary: str = 'all',
        num_distractors: int = 150,
        domain: str = 'base',
        seed: int = 0,
        spec: dict | None = None,
        metainfo: dict | None = None,
        pipeline: Sequence[Any] = (),
        **kwargs: Any,
    ) -> None:
        for option, value, known in (
            ('split', split, ('train', 'val', 'test')),
            ('objects', objects, ('all', 'seen')),
            ('vocabulary', vocabulary, ('all', 'seen', 'distractors')),
            ('domain', domain, tuple(DOMAINS)),
        ):
            if value not in known:
                raise ValueError(f'{option} must be one of {known}, got {value!r}')
        if len(size) != 2 or min(size) < 16:
            raise ValueError(f'size must be (height, width) of 16 pixels or more, got {size}')
        self.length, self.split, self.seed = length, split, seed
        self.size, self.domain = (int(size[0]), int(size[1])), DOMAINS[domain]
        self.spec = WorldSpec(**(spec or {}))
        self.compositions = seen_compositions(self.spec) if objects == 'seen' else None
        every, seen = self.spec.classes, seen_classes(self.spec)
        classes = seen if vocabulary == 'seen' else every
        labels = [classes.index(name) if name in classes else IGNORED for name in every]
        self.lookup = np.array(labels, np.uint8)
        if vocabulary == 'distractors':
            classes = (*classes, *distractor_names(self.spec, num_distractors))
        colours, others = dict(zip(every, world_palette(self.spec))), make_palette(len(classes))
        palette = [colours.get(name, other) for name, other in zip(classes, others)]
        things = [
            classes.index(name) for name in every[len(self.spec.grounds) :] if name in classes
        ]
        meta: dict[str, Any] = dict(classes=classes, palette=palette, seen_classes=seen)
        meta.update(things=things, **(metainfo or {}))
        kinds = [step.get('type') if isinstance(step, dict) else None for step in pipeline]
        self.panoptic = 'PackPanopticInputs' in kinds
        steps = [step for step, kind in zip(pipeline, kinds) if kind not in LOADING_STEPS]
        usual = dict(data_prefix=dict(img_path='', seg_map_path=''), img_suffix='.png')
        super().__init__(metainfo=meta, pipeline=steps, **{**usual, **kwargs})

    @classmethod
    def get_label_map(cls, new_classes: Sequence | None = None) -> None:
        """None: labels are drawn in the vocabulary of this data set, whatever it is."""

    def load_data_list(self) -> list[dict]:
        """One entry a scene; the paths only name it."""
        return [
            dict(
                img_path=f'world/{self.split}/{index:06d}.png',
                seg_map_path=f'world/{self.split}/{index:06d}_labels.png',
                scene=index,
                label_map=None,
                reduce_zero_label=False,
            )
            for index in range(self.length)
        ]

    def scene(self, index: int) -> Scene:
        """Draw scene ``index``; its labels are indices of ``spec.classes``."""
        rng = scene_rng(self.seed, self.split, index)
        return render_scene(rng, self.size, self.spec, self.compositions, self.domain)

    def labels_of(self, scene: Scene) -> NDArray[np.uint8]:
        """Label map (H, W) of a scene in this data set's vocabulary, 255 outside of it."""
        return self.lookup[scene.labels]

    def segments_of(self, scene: Scene) -> tuple[NDArray[np.uint16], list[dict[str, Any]]]:
        """Id map (H, W) of a scene, 0 outside of the vocabulary, and its segments.

        Objects are things, each ground is stuff; ``id`` counts from 1.
        """
        labels, owners = self.labels_of(scene).astype(np.int64), scene.owners.astype(np.int64)
        keys = np.where(owners >= 0, owners + IGNORED + 1, labels)  # of objects behind the grounds'
        keys[labels == IGNORED] = -1
        values, first, inverse = np.unique(keys, return_index=True, return_inverse=True)
        outside = int(values[0] == -1)
        ids = inverse.reshape(keys.shape) + (1 - outside)
        segments = [
            dict(id=number, label=int(labels.flat[place]), is_thing=bool(value > IGNORED))
            for number, (value, place) in enumerate(
                zip(values[outside:].tolist(), first[outside:].tolist()), 1
            )
        ]
        return ids.astype(np.uint16), segments

    def get_data_info(self, idx: int) -> dict:
        """The entry of item ``idx`` with ``img`` (H, W, 3), BGR 0..255, and ``gt_seg_map``.

        With ``PackPanopticInputs`` in the pipeline also ``gt_panoptic`` and ``gt_segments``.
        """
        info = super().get_data_info(idx)
        scene = self.scene(info['scene'])
        info['img'] = np.ascontiguousarray(scene.image[..., ::-1])
        info['gt_seg_map'] = self.labels_of(scene)
        info['seg_fields'] = ['gt_seg_map']
        if self.panoptic:
            info['gt_panoptic'], info['gt_segments'] = self.segments_of(scene)
            info['seg_fields'].append('gt_panoptic')
        info['img_shape'] = info['ori_shape'] = scene.labels.shape
        return info


def export_world(dataset: ComposedWorldDataset, folder: Path | str) -> Path:
    """Write a data set as files in mmseg's layout; returns the folder.

    ``images/<split>/000000.png`` and ``annotations/<split>/000000.png`` below it, and
    ``classes.txt``, one name a line. ``BaseSegDataset`` with these classes reads the same.
    """
    folder = Path(folder)
    images, annotations = (folder / kind / dataset.split for kind in ('images', 'annotations'))
    images.mkdir(parents=True, exist_ok=True)
    annotations.mkdir(parents=True, exist_ok=True)
    (folder / 'classes.txt').write_text('\n'.join(dataset.metainfo['classes']) + '\n')
    for index in track(range(len(dataset)), f'scenes to {folder}', transient=True):
        info = dataset.get_data_info(index)
        name = Path(info['img_path']).name
        Image.fromarray(info['img'][..., ::-1]).save(images / name)
        Image.fromarray(info['gt_seg_map']).save(annotations / name)
    return folder
