# AdamW, 80,000 iterations, cosine decay without warm-up.
max_iters = 80000
optim_wrapper = dict(
    type='OptimWrapper',
    constructor='GroupedOptimWrapperConstructor',
    # 2e-4 for head, upsampling and LPAM; 2e-6 for CLIP; no weight decay on norms.
    optimizer=dict(type='AdamW', lr=2e-4, weight_decay=1e-4),
    paramwise_cfg=dict(norm_decay_mult=0.0, custom_keys={'backbone': dict(lr_mult=0.01)}),
    # scope='all': one norm over every trained parameter; 'group': CLIP, head and LPAM apart.
    clip_grad=dict(max_norm=0.01, scope='all'),
)
param_scheduler = [
    dict(
        type='CosineAnnealingLR',
        T_max=max_iters,
        eta_min=0.0,
        begin=0,
        end=max_iters,
        by_epoch=False,
    )
]

# One validation, over the 5,000 images of COCO-Stuff's validation set, at the end.
train_cfg = dict(type='IterBasedTrainLoop', max_iters=max_iters, val_interval=max_iters)
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
