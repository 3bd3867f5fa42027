# A toy-sized InfoCLIP learns the three ADE20K images under tests/data by heart (random weights).
# python tools/train.py configs/toy/infoclip_toy_ade-3-images.py
_base_ = ['../_base_/default_runtime.py', '../_base_/clip_preprocessor.py']
side = (80, 80)
max_iters = 200
vision_cfg = dict(image_size=80, layers=4, width=128, head_width=32, patch_size=8)
text_cfg = dict(context_length=77, vocab_size=49408, width=128, heads=4, layers=2)

model = dict(
    type='OpenVocabSegmentor',
    data_preprocessor=dict(size=side, test_cfg=dict(size_divisor=1)),
    backbone=dict(
        type='CLIPDualEncoder',
        model_name=dict(embed_dim=64, quick_gelu=True, vision_cfg=vision_cfg, text_cfg=text_cfg),
        pretrained=None,
        finetune='full',  # the weights are random: nothing in them to keep
    ),
    neck=dict(type='LPAM'),
    decode_head=dict(
        type='CATSegHead',
        hidden_dim=32,
        num_layers=1,
        num_heads=4,
        window_size=5,
        pooling_size=1,
        pad_len=150,
        text_proj_dim=32,
        appearance_proj_dim=32,
        decoder_dims=(16, 16),
        decoder_guidance_dims=(64, 32),
        decoder_guidance_proj_dims=(16, 8),
        loss_decode=dict(type='CATSegBCELoss', ignored='exclude'),
    ),
    loss_ib=dict(type='InfoBottleneckLoss', loss_weight=0.1),
    loss_mi=dict(type='MITransferLoss', loss_weight=0.1),
    input_size=80,
    templates=('{}',),
    test_cfg=dict(mode='whole'),
)

load = [dict(type='LoadImageFromFile'), dict(type='LoadAnnotations')]
loading = [dict(type='CheckInputs'), *load, dict(type='CheckInputs')]
fixed = dict(type='Resize', scale=side, keep_ratio=False)  # no random augmentation: resumes exactly
ade = dict(
    type='ADE20KDataset',
    data_root='tests/data/ade',
    data_prefix=dict(img_path='images/validation', seg_map_path='annotations/validation'),
    reduce_zero_label=True,
)
train_dataloader = dict(
    batch_size=3,
    num_workers=0,
    sampler=dict(type='InfiniteSampler', shuffle=True),
    dataset=dict(**ade, pipeline=[*loading, fixed, dict(type='PackSegInputs')]),
)
test_dataloader = dict(
    batch_size=1,
    num_workers=0,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(**ade, pipeline=[*loading, dict(type='PackSegInputs')]),
)
test_evaluator = dict(type='IoUMetric', iou_metrics=['mIoU'])

optim_wrapper = dict(
    type='OptimWrapper',
    constructor='GroupedOptimWrapperConstructor',
    optimizer=dict(type='AdamW', lr=2e-3, weight_decay=1e-4),
    clip_grad=dict(max_norm=0.01, norm_type=2, scope='group'),
    paramwise_cfg=dict(norm_decay_mult=0.0, custom_keys={'backbone': dict(lr_mult=0.25)}),
)
param_scheduler = [
    dict(type='CosineAnnealingLR', T_max=max_iters, end=max_iters, by_epoch=False),
    dict(type='LinearLR', start_factor=0.1, end=20, by_epoch=False),
]
train_cfg = dict(type='IterBasedTrainLoop', max_iters=max_iters)
test_cfg = dict(type='TestLoop')

default_hooks = dict(
    logger=dict(type='LoggerHook', interval=10, log_metric_by_epoch=False),
    checkpoint=dict(type='CheckpointHook', by_epoch=False, interval=50),
    visualization=dict(type='SegVisualizationHook'),
)
custom_hooks = [
    dict(type='FrozenTeacherHook'),
    dict(type='VocabularyHook'),
    dict(type='NonFiniteLossHook'),
]
