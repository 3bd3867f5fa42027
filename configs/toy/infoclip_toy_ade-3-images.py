# A toy-sized InfoCLIP learns the three ADE20K images under tests/data by heart.
# python tools/train.py configs/toy/infoclip_toy_ade-3-images.py
_base_ = ['./infoclip_toy.py']
side = (80, 80)
pipeline = [dict(type='CheckInputs'), dict(type='LoadImageFromFile'), dict(type='LoadAnnotations')]
fixed = dict(type='Resize', scale=side, keep_ratio=False)  # no random augmentation: resumes exactly
train_pipeline = [*pipeline, fixed, dict(type='PackSegInputs')]
test_pipeline = [*pipeline, dict(type='PackSegInputs')]
ade = dict(
    _delete_=True,
    type='ADE20KDataset',
    data_root='tests/data/ade',
    data_prefix=dict(img_path='images/validation', seg_map_path='annotations/validation'),
    reduce_zero_label=True,
)
model = dict(
    data_preprocessor=dict(size=side),
    decode_head=dict(
        pad_len=150, pooling_size=1, decoder_dims=(16, 16), loss_decode=dict(ignored='exclude')
    ),
    input_size=80,
    test_cfg=dict(mode='whole'),
)
max_iters = 200
train_dataloader = dict(batch_size=3, dataset=dict(pipeline=train_pipeline, **ade))
test_dataloader = dict(dataset=dict(pipeline=test_pipeline, **ade))
optim_wrapper = dict(
    optimizer=dict(lr=2e-3),
    clip_grad=dict(scope='group'),
    paramwise_cfg=dict(custom_keys={'backbone': dict(lr_mult=0.25)}),
)
param_scheduler = [
    dict(type='CosineAnnealingLR', T_max=max_iters, end=max_iters, by_epoch=False),
    dict(type='LinearLR', start_factor=0.1, end=20, by_epoch=False),
]
train_cfg = dict(max_iters=max_iters)
default_hooks = dict(
    logger=dict(interval=10),
    checkpoint=dict(interval=50),
    visualization=dict(type='SegVisualizationHook'),
)
