# Second stage of the harder world's CLIP: dense embeddings learn from windows, no captions.
# python tools/pretrain_clip.py configs/world/shapes/pretrain_{1_contrast,2_dense}.py
_base_ = ['./pretrain_1_contrast.py']
max_iters = 600
model = dict(
    type='SelfDistilledCLIP',
    windows=(32, 64),
    backbone=dict(pretrained='work_dirs/pretrain_clip/1/clip.safetensors'),
)
train_dataloader = dict(
    batch_size=16,
    dataset=dict(views={'_delete_': True, 128: 1}, length=16 * max_iters, seed=1),
)
optim_wrapper = dict(optimizer=dict(lr=5e-4))
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, end=50, by_epoch=False),
    dict(type='CosineAnnealingLR', begin=50, end=max_iters, by_epoch=False),
]
train_cfg = dict(max_iters=max_iters)
custom_hooks = [dict(type='NonFiniteLossHook'), dict(type='FrozenTeacherHook')]
