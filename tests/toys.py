"""Configs of toy-sized models."""

from __future__ import annotations

import torch.utils.checkpoint

RECOMPUTES = (False, True)
"""Values of ``with_cp`` that this torch has."""
if hasattr(torch.utils.checkpoint, 'create_selective_checkpoint_contexts'):
    RECOMPUTES += ('selective',)
TOY_CLIP = dict(
    embed_dim=32,
    quick_gelu=True,
    vision_cfg=dict(image_size=32, layers=4, width=128, head_width=64, patch_size=8),
    text_cfg=dict(context_length=77, vocab_size=49408, width=64, heads=2, layers=2),
)
CLIP_MEAN = [122.7709383, 116.7460125, 104.09373615]
CLIP_STD = [68.5005327, 66.6321579, 70.32316305]
TOY_MODEL = dict(
    type='OpenVocabSegmentor',
    data_preprocessor=dict(
        type='OpenVocabDataPreProcessor',
        mean=CLIP_MEAN,
        std=CLIP_STD,
        bgr_to_rgb=True,
        pad_val=0,
        seg_pad_val=255,
        size=(48, 48),
    ),
    backbone=dict(type='CLIPDualEncoder', model_name=TOY_CLIP, out_blocks=(1, 2)),
    decode_head=dict(
        type='CATSegHead',
        hidden_dim=32,
        num_layers=2,
        num_heads=2,
        window_size=3,
        pad_len=8,
        text_proj_dim=16,
        appearance_proj_dim=16,
        decoder_dims=(32, 16),
        decoder_guidance_dims=(32, 16),
        decoder_guidance_proj_dims=(16, 8),
    ),
    input_size=48,
    test_cfg=dict(mode='slide', size=80, window=48, overlap=0.333, view_batch_size=4),
)
DISTILLATION = dict(
    neck=dict(type='LPAM'),
    loss_ib=dict(type='InfoBottleneckLoss'),
    loss_mi=dict(type='MITransferLoss'),
)
