"""Configs of the data sets and data loaders of benchmarks."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from infoclip_mmseg.datasets.benchmarks import Cfg, Layout

LOADER_DEFAULTS = dict(
    batch_size=1, num_workers=2, sampler=dict(type='DefaultSampler', shuffle=False)
)
_LOAD, _LOAD_PANOPTIC = dict(type='LoadLabelMap'), dict(type='LoadPanoptic')
_OF_LABELS = dict(LoadAnnotations=_LOAD, LoadPanoptic=_LOAD)
_OF_LABELS['PackPanopticInputs'] = dict(type='PackSegInputs')
_OF_SEGMENTS = dict(LoadAnnotations=_LOAD_PANOPTIC, LoadLabelMap=_LOAD_PANOPTIC)
_OF_SEGMENTS['PackSegInputs'] = dict(type='PackPanopticInputs')


def make_dataset_cfg(layout: Layout, data_root: str | Path, pipeline: Sequence[Cfg]) -> Cfg:
    """Config of a benchmark's data set, of a layout from :func:`find_layout`.

    The steps of the test pipeline that load and pack labels are those that the data set needs, see
    :func:`with_label_loader`.
    """
    return dict(
        copy.deepcopy(layout.dataset),
        data_root=str(Path(data_root, layout.folder)),
        data_prefix=dict(img_path=layout.images, seg_map_path=layout.labels),
        ann_file=layout.ann_file,
        pipeline=with_label_loader(pipeline, layout.is_panoptic),
    )


def make_dataloader_cfg(
    layout: Layout,
    data_root: str | Path,
    pipeline: Sequence[Cfg],
    template: Mapping[str, Any] | None = None,
) -> Cfg:
    """Config of a data loader as `template`, but for the data set of :func:`make_dataset_cfg`."""
    rest = {key: value for key, value in (template or {}).items() if key != 'dataset'}
    loader = copy.deepcopy({**LOADER_DEFAULTS, **rest})
    return dict(loader, dataset=make_dataset_cfg(layout, data_root, pipeline))


def with_label_loader(steps: Any, panoptic: bool = False) -> Any:
    """A pipeline (nested lists and dicts) whose steps load and pack label maps, or segments.

    Label maps are loaded by :class:`~infoclip_mmseg.datasets.LoadLabelMap`; `panoptic` asks for
    :class:`~infoclip_mmseg.datasets.LoadPanoptic` and the packing that goes with it.
    """
    if isinstance(steps, Mapping):
        kind = steps.get('type', '')
        step = (_OF_SEGMENTS if panoptic else _OF_LABELS).get(kind)
        if step is not None:  # packing keeps its options
            return {**steps, **step} if kind.startswith('Pack') else dict(step)
        return {key: with_label_loader(value, panoptic) for key, value in steps.items()}
    if isinstance(steps, (list, tuple)):
        return type(steps)(with_label_loader(step, panoptic) for step in steps)
    return steps
