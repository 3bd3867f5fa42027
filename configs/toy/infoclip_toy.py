# A toy-sized InfoCLIP on drawn scenes, from random weights: about two minutes on two cores.
# python tools/quickstart.py
# (or, once that has written data/toy: python tools/train.py configs/toy/infoclip_toy.py)
custom_imports = dict(imports=['infoclip_mmseg'], allow_failed_imports=False)
default_scope = 'mmseg'
crop_size = (80, 80)
max_iters = 600
vision_cfg = dict(image_size=80, layers=4, width=128, head_width=32, patch_size=8)
text_cfg = dict(context_length=77, vocab_size=49408, width=128, heads=4, layers=2)

model = dict(
    type='OpenVocabSegmentor',
    data_preprocessor=dict(
        type='OpenVocabDataPreProcessor',
        mean=[122.7709383, 116.7460125, 104.09373615],
        std=[68.5005327, 66.6321579, 70.32316305],
        bgr_to_rgb=True,
        pad_val=0,
        seg_pad_val=255,
        size=crop_size,
        test_cfg=dict(size_divisor=1),
    ),
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
        pooling_size=2,
        pad_len=8,
        text_proj_dim=32,
        appearance_proj_dim=32,
        decoder_dims=(32, 16),
        decoder_guidance_dims=(64, 32),
        decoder_guidance_proj_dims=(16, 8),
        loss_decode=dict(type='CATSegBCELoss'),
    ),
    loss_ib=dict(type='InfoBottleneckLoss', loss_weight=0.1),
    loss_mi=dict(type='MITransferLoss', loss_weight=0.1),
    input_size=80,
    templates=('{}',),
    test_cfg=dict(mode='slide', size=128, window=80, overlap=0.333, view_batch_size=5),
)

train_pipeline = [
    dict(type='CheckInputs'),
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations'),
    dict(
        type='RandomChoiceResize',
        scales=[80, 104, 128],
        resize_type='ResizeShortestEdge',
        max_size=512,
    ),
    dict(type='RandomCrop', crop_size=crop_size, cat_max_ratio=1.0),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PackSegInputs'),
]
test_pipeline = [
    dict(type='CheckInputs'),
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations'),
    dict(type='PackSegInputs'),
]
dataset = dict(type='ToyShapesDataset', data_root='data/toy')
train_dataloader = dict(
    batch_size=4,
    num_workers=0,
    sampler=dict(type='InfiniteSampler', shuffle=True),
    dataset=dict(
        **dataset,
        data_prefix=dict(img_path='images/training', seg_map_path='annotations/training'),
        pipeline=train_pipeline,
    ),
)
test_dataloader = dict(
    batch_size=1,
    num_workers=0,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        **dataset,
        data_prefix=dict(img_path='images/validation', seg_map_path='annotations/validation'),
        pipeline=test_pipeline,
    ),
)
test_evaluator = dict(type='IoUMetric', iou_metrics=['mIoU'])

optim_wrapper = dict(
    type='OptimWrapper',
    constructor='GroupedOptimWrapperConstructor',
    optimizer=dict(type='AdamW', lr=1e-3, weight_decay=1e-4),
    clip_grad=dict(max_norm=0.01, norm_type=2, scope='all'),
    paramwise_cfg=dict(norm_decay_mult=0.0),
)
param_scheduler = [
    dict(type='CosineAnnealingLR', T_max=max_iters, end=max_iters, by_epoch=False),
    dict(type='LinearLR', start_factor=0.1, end=50, by_epoch=False),
]
train_cfg = dict(type='IterBasedTrainLoop', max_iters=max_iters)
test_cfg = dict(type='TestLoop')

default_hooks = dict(
    logger=dict(type='LoggerHook', interval=50, log_metric_by_epoch=False),
    checkpoint=dict(type='CheckpointHook', by_epoch=False, interval=max_iters),
)
custom_hooks = [
    dict(type='FrozenTeacherHook'),
    dict(type='VocabularyHook'),
    dict(type='NonFiniteLossHook'),
]
log_processor = dict(by_epoch=False)
vis_backends = [dict(type='LocalVisBackend')]
visualizer = dict(type='SegLocalVisualizer', vis_backends=vis_backends)
randomness = dict(seed=0)
