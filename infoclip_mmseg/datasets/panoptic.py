"""Panoptic data sets in COCO's format: id maps as PNG, their segments in one JSON file."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmcv.transforms import BaseTransform
from mmengine.structures import PixelData
from mmseg.datasets import BaseSegDataset
from mmseg.datasets.transforms import PackSegInputs
from mmseg.registry import DATASETS, TRANSFORMS
from numpy.typing import NDArray
from PIL import Image

from infoclip_mmseg.utils.files import first_few
from infoclip_mmseg.utils.palette import make_palette


def read_id_map(path: str | Path) -> NDArray[np.int64]:
    """Ids (H, W) of a PNG, red + 256 green + 65536 blue; a ValueError for another picture."""
    with Image.open(path) as image:
        if image.mode != 'RGB':
            raise ValueError(
                f'id map {str(path)!r} is a picture of mode {image.mode}; expected RGB, of which a '
                'pixel is an id: red + 256 green + 65536 blue'
            )
        colours = np.asarray(image, dtype=np.int64)
    return colours @ np.array([1, 256, 65536])


def number_segments(
    ids: NDArray[np.int64], segments: Sequence[Mapping[str, Any]], name: str = 'id map'
) -> tuple[NDArray[np.uint16], list[dict[str, Any]]]:
    """Ids renumbered 1, 2, ... in the order of the segments, 0 where there is none.

    An id of the map that no segment has is a ValueError. Segments without a pixel are left out.
    """
    values, inverse = np.unique(ids, return_inverse=True)
    known = {int(segment['id']): segment for segment in segments}
    unknown = [value for value in values.tolist() if value and value not in known]
    if unknown:
        raise ValueError(
            f'{name} has {len(unknown)} ids without an entry in the JSON file '
            f'({first_few(unknown)}); do both belong together?'
        )
    present = [key for key in known if key in set(values.tolist())]
    place = {key: number for number, key in enumerate(present, 1)}
    table = np.array([place.get(int(value), 0) for value in values], dtype=np.uint16)
    kept = [{**known[key], 'id': number} for key, number in place.items()]
    return table[inverse].reshape(ids.shape), kept


@DATASETS.register_module()
class PanopticDataset(BaseSegDataset):
    """Images, id maps and segments in COCO's panoptic format.

    Class k is the k-th of the JSON's ``categories``, or of ``categories`` here; ``metainfo`` also
    has ``things``, the indices of classes whose objects are told apart.

    Args:
        ann_file: JSON with ``images``, ``annotations`` (``file_name`` and ``segments_info``) and
            ``categories``.
        data_prefix: ``img_path`` and ``seg_map_path``, the folder of the id maps.
        categories: Ids of the categories in the order of the classes; None takes the file's.
        metainfo: ``classes`` in place of the categories' names, ``things`` in place of the file's,
            and so on.
        **kwargs: As in ``BaseSegDataset``.

    Raises:
        FileNotFoundError: The JSON file is not there.
        ValueError: It is no panoptic one, a segment is of an unknown category, there are not as
            many names as categories, or one of the things is no class.
    """

    def __init__(
        self,
        ann_file: str,
        categories: Sequence[int] | None = None,
        metainfo: Mapping[str, Any] | None = None,
        data_root: str | None = None,
        **kwargs: Any,
    ) -> None:
        path = Path(data_root or '', ann_file)
        if not path.is_file():
            raise FileNotFoundError(
                f'panoptic annotations {str(path)!r} do not exist (working directory '
                f'{Path.cwd()}); tools/prepare_data.py --help says where they come from'
            )
        self._content = json.loads(path.read_text(encoding='utf-8'))
        missing = {'images', 'annotations', 'categories'} - set(self._content)
        if missing or not all('segments_info' in a for a in self._content['annotations'][:1]):
            raise ValueError(
                f'{str(path)!r} is no file of panoptic annotations: it has no '
                f'{sorted(missing) or "segments_info"}'
            )
        known = {entry['id']: entry for entry in self._content['categories']}
        order = list(known) if categories is None else list(categories)
        self._label = {key: index for index, key in enumerate(order)}
        things = [i for i, key in enumerate(order) if known.get(key, {}).get('isthing')]
        names = [known[key]['name'] if key in known else str(key) for key in order]
        meta: dict[str, Any] = dict(classes=names, things=things, ignore_index=255)
        meta['palette'] = make_palette(len(names))
        meta |= metainfo or {}
        _check_classes(meta['classes'], meta['things'], len(order))
        super().__init__(
            ann_file=ann_file,
            data_root=data_root,
            metainfo=meta,
            img_suffix='.jpg',
            seg_map_suffix='.png',
            **kwargs,
        )

    def load_data_list(self) -> list[dict]:
        """One entry an image, with its segments (``id``, ``label``, ``is_thing``, ``iscrowd``)."""
        files = {image['id']: image['file_name'] for image in self._content['images']}
        things, entries = set(self.metainfo['things']), []
        for annotation in self._content['annotations']:
            segments = [
                self._segment(info, things, annotation) for info in annotation['segments_info']
            ]
            entries.append(
                dict(
                    img_path=str(Path(self.data_prefix['img_path'], files[annotation['image_id']])),
                    seg_map_path=str(
                        Path(self.data_prefix['seg_map_path'], annotation['file_name'])
                    ),
                    gt_segments=segments,
                    reduce_zero_label=False,
                    label_map=None,
                    seg_fields=[],
                )
            )
        return entries

    def _segment(
        self, info: Mapping[str, Any], things: set[int], annotation: Mapping[str, Any]
    ) -> dict[str, Any]:
        if info['category_id'] not in self._label:
            raise ValueError(
                f'{annotation["file_name"]}: segment {info["id"]} is of category '
                f'{info["category_id"]}, which is none of the {len(self._label)} of this data set'
            )
        label = self._label[info['category_id']]
        crowd = bool(info.get('iscrowd', 0))
        return dict(id=info['id'], label=label, is_thing=label in things, iscrowd=crowd)


def _check_classes(names: Sequence[str], things: Sequence[int], count: int) -> None:
    if len(names) != count:
        raise ValueError(
            f'metainfo.classes has {len(names)} names for {count} categories; give one a category, '
            'in their order'
        )
    wrong = [index for index in things if not 0 <= index < count]
    if wrong:
        raise ValueError(
            f'metainfo.things {first_few(wrong)} are no class; they are indices of the {count} '
            f'classes, 0..{count - 1}'
        )


@TRANSFORMS.register_module()
class LoadPanoptic(BaseTransform):
    """Load the id map of a panoptic data set, and the label map that follows from it.

    Required keys: seg_map_path, gt_segments. Added: gt_panoptic (H, W), uint16, ids from 1 and 0
    where there is no segment; gt_seg_map (H, W), the label of each pixel, 255 where there is none
    or a crowd; seg_fields. Changed: gt_segments, whose ids are those of the map.
    """

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        """Load one sample; see the class."""
        path = results['seg_map_path']
        ids, segments = number_segments(read_id_map(path), results['gt_segments'], f'id map {path}')
        return add_panoptic(results, ids, segments)


def add_panoptic(
    results: dict[str, Any], ids: NDArray[np.uint16], segments: list[dict[str, Any]]
) -> dict[str, Any]:
    """Put an id map (H, W), its segments and the label map that follows into a sample."""
    table = np.full(len(segments) + 1, 255, dtype=np.uint8)
    for segment in segments:
        if not segment.get('iscrowd'):
            table[segment['id']] = segment['label']
    results.update(gt_panoptic=ids, gt_segments=segments, gt_seg_map=table[ids])
    fields = results.setdefault('seg_fields', [])
    fields += [name for name in ('gt_seg_map', 'gt_panoptic') if name not in fields]
    return results


@TRANSFORMS.register_module()
class PackPanopticInputs(PackSegInputs):
    """mmseg's packing, and ``gt_panoptic`` with ``gt_segments`` of those segments that are left."""

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        """Pack one sample; see the class."""
        packed = super().transform(results)
        if 'gt_panoptic' in results:
            ids = np.ascontiguousarray(results['gt_panoptic']).astype(np.int64)
            left = set(np.unique(ids).tolist())
            sample = packed['data_samples']
            sample.gt_panoptic = PixelData(data=torch.from_numpy(ids)[None])
            segments = [s for s in results['gt_segments'] if s['id'] in left]
            sample.set_metainfo(dict(gt_segments=segments))
        return packed
