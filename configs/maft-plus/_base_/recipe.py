# MAFT+'s recipe: AdamW, polynomial decay without warm-up, 8 images in all, shortest edge 800.
max_iters = 55000
_no_decay = (
    'queries_features',
    'queries_embedder',
    'proposals.decoder.level_embed',
    'void_embedding',
)
optim_wrapper = dict(
    type='OptimWrapper',
    constructor='GroupedOptimWrapperConstructor',
    optimizer=dict(type='AdamW', lr=1e-4, weight_decay=2e-5),
    paramwise_cfg=dict(
        norm_decay_mult=0.0,
        custom_keys={
            'backbone': dict(lr_mult=0.1),
            **{key: dict(decay_mult=0.0) for key in _no_decay},
        },
    ),
    clip_grad=dict(max_norm=0.01, scope='all'),
)
param_scheduler = [
    dict(type='PolyLR', power=0.9, eta_min=0.0, begin=0, end=max_iters, by_epoch=False)
]
train_cfg = dict(type='IterBasedTrainLoop', max_iters=max_iters, val_interval=5000)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
default_hooks = dict(
    timer=dict(type='IterTimerHook'),
    logger=dict(type='LoggerHook', interval=50, log_metric_by_epoch=False),
    param_scheduler=dict(type='ParamSchedulerHook'),
    checkpoint=dict(type='CheckpointHook', by_epoch=False, interval=5000, max_keep_ckpts=3),
    sampler_seed=dict(type='DistSamplerSeedHook'),
    visualization=dict(type='SegVisualizationHook'),
)
_edge = dict(type='Resize', scale=(1333, 800), keep_ratio=True)
_load = [dict(type='LoadImageFromFile'), dict(type='CheckInputs')]
_labels = [dict(type='LoadLabelMap'), dict(type='CheckInputs')]
train_800 = [
    dict(type='CheckInputs'),
    *(dict(type='LoadImageFromFile'), *_labels, _edge),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PackSegInputs'),
]
test_800 = [*_load, _edge, *_labels, dict(type='PackSegInputs')]
