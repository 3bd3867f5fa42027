# Pretraining of the small CLIP, first stage: captions of whole scenes and of parts of them.
# python tools/pretrain_clip.py
_base_ = ['../_base_/default_runtime.py', './_base_/clip.py']
max_iters = 2400
model = dict(
    type='ContrastiveCLIP',
    data_preprocessor=dict(
        _delete_=True, type='ViewPreprocessor', mean=_base_.clip_mean, std=_base_.clip_std
    ),
    backbone=dict(type='CLIPDualEncoder', model_name=_base_.clip, pretrained=None, finetune='full'),
)
train_dataloader = dict(
    batch_size=48,  # scenes
    num_workers=0,
    sampler=dict(type='DefaultSampler', shuffle=False),
    collate_fn=dict(type='collate_views'),
    dataset=dict(
        type='CaptionedViewsDataset',
        views={8: 12, 16: 6, 32: 1},
        named={8: 1, 16: 1},  # close-ups name their one subject
        length=48 * max_iters,
    ),
)
optim_wrapper = dict(
    type='BFloat16OptimWrapper',
    optimizer=dict(type='AdamW', lr=1.5e-3, weight_decay=0.05, betas=(0.9, 0.98)),
    paramwise_cfg=dict(norm_decay_mult=0.0, bias_decay_mult=0.0),
    clip_grad=dict(max_norm=1.0),
)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, end=100, by_epoch=False),
    dict(type='CosineAnnealingLR', begin=100, end=max_iters, by_epoch=False),
]
train_cfg = dict(type='IterBasedTrainLoop', max_iters=max_iters)
default_hooks = dict(
    logger=dict(type='LoggerHook', interval=20, log_metric_by_epoch=False),
    checkpoint=dict(type='CheckpointHook', by_epoch=False, interval=200, max_keep_ckpts=2),
)
custom_hooks = [dict(type='NonFiniteLossHook')]
