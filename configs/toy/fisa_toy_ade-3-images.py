# A toy-sized FISA learns the classes of the true masks of the three ADE20K images under tests/data.
# python tools/train.py configs/toy/fisa_toy_ade-3-images.py
_base_ = ['./infoclip_toy_ade-3-images.py']
max_iters = 150
model = dict(
    backbone=dict(type='MaskTokenEncoder', finetune='all'),  # random weights: nothing to keep
    neck=None,
    decode_head=dict(_delete_=True, type='MaskTokenHead'),
    loss_ib=None,
    loss_mi=None,
    loss_aux=[dict(type='FiSeRLoss', loss_weight=0.1)],
    test_cfg=dict(oracle='masks'),
)
optim_wrapper = dict(
    optimizer=dict(lr=1e-3), paramwise_cfg=dict(_delete_=True, norm_decay_mult=0.0)
)
param_scheduler = [
    dict(type='CosineAnnealingLR', T_max=max_iters, end=max_iters, by_epoch=False),
    dict(type='LinearLR', start_factor=0.1, end=20, by_epoch=False),
]
train_cfg = dict(max_iters=max_iters)
custom_hooks = [dict(type='VocabularyHook'), dict(type='NonFiniteLossHook')]
