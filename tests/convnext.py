"""A toy-sized ConvNeXt CLIP, and a toy-sized MAFT+ on it."""

from __future__ import annotations

import copy

CONVNEXT = dict(
    embed_dim=32,
    vision_cfg=dict(
        timm_model_name='convnext_atto',
        timm_pool='',
        timm_proj='mlp',
        image_size=64,
        convnext=dict(depths=(1, 1, 2, 1), dims=(8, 16, 32, 64)),
    ),
    text_cfg=dict(context_length=77, vocab_size=49408, width=32, heads=2, layers=2),
)
PROPOSALS = dict(
    type='Mask2FormerProposals',
    num_queries=6,
    hidden_dim=32,
    num_heads=4,
    encoder_layers=1,
    encoder_ffn=64,
    decoder_layers=2,
    decoder_ffn=64,
)
MASKS = dict(
    type='MaskClassificationHead',
    proposals=PROPOSALS,
    transfer=dict(type='ContentDependentTransfer', num_heads=4),
    loss_masks=dict(type='Mask2FormerCriterion', num_points=64),
    loss_mask_aware=dict(type='MaskAwareLoss'),
)


def mask_config(**changes) -> dict:
    """Changes of the toy-sized model that make a MAFT+ of it."""
    model = dict(
        backbone=dict(model_name=copy.deepcopy(CONVNEXT), finetune='trunk', out_blocks=None),
        input_size=None,
        synonyms='max',
        test_cfg=dict(mode='whole'),
    )
    for key, value in changes.items():
        model[key] = {**model[key], **value} if isinstance(model.get(key), dict) else value
    return model
