"""A toy-sized model that finds known masks: for tests of what is done with segments."""

from __future__ import annotations

from pathlib import Path

import convnext
import torch
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmseg.registry import MODELS
from torch import Tensor

from infoclip_mmseg.models import ImageFeatures, MaskClassificationHead

SCORES = (0.9, 0.8, 0.7, 0.6, 0.3)


@MODELS.register_module()
class QuarterMaskHead(MaskClassificationHead):
    """Masks: the quarters of the image row by row, and its upper half, which is the least sure.

    Mask i is of class i modulo T, with the probability ``SCORES[i]``; void has the rest.
    """

    def classify(self, features: ImageFeatures, text: Tensor) -> tuple[Tensor, Tensor]:
        batch, _, height, width = features.blocks[0].shape
        masks = torch.full((batch, 5, height, width), -20.0)
        for index in range(4):
            rows, columns = (index // 2 * height // 2, index % 2 * width // 2)
            masks[:, index, rows : rows + height // 2, columns : columns + width // 2] = 20
        masks[:, 4, : height // 2] = 20
        classes = torch.full((batch, 5, self.num_classes + 1), 1e-6)
        for index, score in enumerate(SCORES):
            classes[:, index, index % self.num_classes] = score
            classes[:, index, -1] = 1 - score
        return classes.log(), masks


def write_config(toy_cfg, folder: Path) -> Path:
    """Config file ``quarters.py`` of a model with this head; its checkpoint is ``quarters.pth``."""
    init_default_scope('mmseg')
    model = toy_cfg(**convnext.mask_config())
    model['decode_head'] = dict(convnext.MASKS, type='QuarterMaskHead')
    pipeline = [
        dict(type='LoadImageFromFile'),
        dict(type='Resize', scale=(160, 96), keep_ratio=True),
        dict(type='PackSegInputs'),
    ]
    cfg = Config(
        dict(
            custom_imports=dict(imports=['infoclip_mmseg', 'quarter_masks']),
            model=model,
            test_pipeline=pipeline,
            test_dataloader=dict(dataset=dict(pipeline=pipeline)),
        )
    )
    cfg.dump(folder / 'quarters.py')
    torch.save(dict(state_dict=MODELS.build(cfg.model).state_dict()), folder / 'quarters.pth')
    return folder / 'quarters.py'
