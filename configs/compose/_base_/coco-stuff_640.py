# SAN's crops, learning rates and 60,000 iterations on COCO-Stuff, 32 images in total (4 GPUs x 8).
_base_ = ['../../_base_/datasets/coco-stuff_384x384.py', '../../_base_/schedules/schedule_80k.py']
train_pipeline = [
    dict(type='CheckInputs'),
    dict(type='LoadImageFromFile'),
    dict(type='LoadLabelMap'),
    dict(type='CheckInputs'),
    dict(
        type='RandomChoiceResize',
        scales=[int(64 * factor) for factor in range(5, 16)],
        resize_type='ResizeShortestEdge',
        max_size=2560,
    ),
    dict(type='RandomCrop', crop_size=(640, 640), cat_max_ratio=1.0),
    dict(type='PhotoMetricDistortion'),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PackSegInputs'),
]
train_dataloader = dict(batch_size=8, dataset=dict(pipeline=train_pipeline))
optim_wrapper = dict(
    _delete_=True,
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=1e-4, weight_decay=1e-4),
    paramwise_cfg=dict(
        norm_decay_mult=0.0,
        custom_keys=dict(pos_embed=dict(decay_mult=0.0), cls_token=dict(decay_mult=0.0)),
    ),
    clip_grad=dict(max_norm=0.01, norm_type=2),
)
param_scheduler = [dict(type='PolyLR', eta_min=0.0, power=1.0, end=60000, by_epoch=False)]
train_cfg = dict(max_iters=60000, val_interval=60000)
