"""A toy-sized FISA: mask tokens on the toy ViT, masks of a random FC-CLIP of toy size."""

from __future__ import annotations

import copy

import convnext

GENERATOR = dict(
    type='OpenVocabSegmentor',
    data_preprocessor=dict(type='OpenVocabDataPreProcessor', bgr_to_rgb=True, size_divisor=32),
    backbone=dict(type='CLIPDualEncoder', model_name=convnext.CONVNEXT, finetune='frozen'),
    decode_head=dict(type='MaskClassificationHead', proposals=convnext.PROPOSALS),
    input_size=None,
    synonyms='max',
    test_cfg=dict(mode='whole'),
)


def config(generator: bool = True, **changes) -> dict:
    """Changes of the toy-sized model that make a FISA of it."""
    model = dict(
        backbone=dict(type='MaskTokenEncoder', finetune='mask_q'),
        mask_generator=dict(type='FrozenMaskGenerator', config=copy.deepcopy(GENERATOR)),
        test_cfg=dict(mode='whole'),
    )
    if not generator:
        del model['mask_generator']
    for key, value in changes.items():
        model[key] = {**model[key], **value} if isinstance(model.get(key), dict) else value
    return model
