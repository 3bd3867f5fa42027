# The composed world for segmentation: 64 x 64 pixel scenes, 6 grounds and 24 compositions of which
# training scenes hold 12. Everything is drawn on the fly.
_base_ = ['../../_base_/default_runtime.py', './clip.py']
max_iters = 400
crop_size = (64, 64)
model = dict(
    type='OpenVocabSegmentor',
    data_preprocessor=dict(size=crop_size, test_cfg=dict(size_divisor=1)),
    backbone=dict(
        type='CLIPDualEncoder',
        model_name=_base_.clip,
        pretrained='data/clip/composed_world.safetensors',
        finetune='attention',
    ),
    decode_head=dict(
        type='CATSegHead',
        hidden_dim=32,
        num_layers=1,
        num_heads=4,
        window_size=4,
        pooling_size=1,
        pad_len=0,
        text_proj_dim=32,
        appearance_proj_dim=32,
        decoder_dims=(16, 16),
        decoder_guidance_dims=(32, 16),
        decoder_guidance_proj_dims=(16, 8),
    ),
    input_size=64,
    test_cfg=dict(mode='whole'),
)
# The loading steps are for files; ComposedWorldDataset draws instead.
loading = [dict(type='LoadImageFromFile'), dict(type='LoadAnnotations')]
train_pipeline = [*loading, dict(type='RandomFlip', prob=0.5), dict(type='PackSegInputs')]
test_pipeline = [*loading, dict(type='PackSegInputs')]
train_dataloader = dict(
    batch_size=8,
    num_workers=0,
    sampler=dict(type='InfiniteSampler', shuffle=True),
    dataset=dict(
        type='ComposedWorldDataset',
        length=4000,
        split='train',
        objects='seen',
        vocabulary='seen',
        pipeline=train_pipeline,
    ),
)
test_dataloader = dict(
    batch_size=20,
    num_workers=0,
    sampler=dict(type='DefaultSampler', shuffle=False),
    # Recipes were chosen on split='val'; no scene of this split and seed was looked at for that.
    dataset=dict(
        type='ComposedWorldDataset', length=500, split='test', seed=1, pipeline=test_pipeline
    ),
)
test_evaluator = dict(type='SeenUnseenIoUMetric')
test_cfg = dict(type='TestLoop')

optim_wrapper = dict(
    type='OptimWrapper',
    constructor='GroupedOptimWrapperConstructor',
    optimizer=dict(type='AdamW', lr=1e-3, weight_decay=1e-4),
    paramwise_cfg=dict(norm_decay_mult=0.0, custom_keys={'backbone': dict(lr_mult=0.01)}),
    # LPAM apart: in one norm with it the other gradients would shrink, and rows would not compare.
    clip_grad=dict(max_norm=0.01, scope=[['clip', 'head'], ['lpam']]),
)
param_scheduler = [dict(type='CosineAnnealingLR', T_max=max_iters, end=max_iters, by_epoch=False)]
train_cfg = dict(type='IterBasedTrainLoop', max_iters=max_iters)
default_hooks = dict(
    logger=dict(type='LoggerHook', interval=50, log_metric_by_epoch=False),
    checkpoint=dict(type='CheckpointHook', by_epoch=False, interval=200, max_keep_ckpts=1),
    visualization=dict(type='SegVisualizationHook'),
)
custom_hooks = [dict(type='VocabularyHook'), dict(type='NonFiniteLossHook')]
