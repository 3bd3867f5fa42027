# MasQCLIP's recipe, as FISA's is not public: 10,000 iterations of 4 images, AdamW, one step.
_base_ = ['../../maft-plus/_base_/recipe.py']
max_iters = 10000
optim_wrapper = dict(
    _delete_=True,
    type='OptimWrapper',
    constructor='GroupedOptimWrapperConstructor',
    optimizer=dict(type='AdamW', lr=1e-4, weight_decay=1e-4),
    paramwise_cfg=dict(norm_decay_mult=0.0, custom_keys={'gate': dict(decay_mult=0.0)}),
    clip_grad=dict(max_norm=0.01, scope='all'),
)
param_scheduler = [
    dict(type='MultiStepLR', milestones=[9000], gamma=0.1, begin=0, end=max_iters, by_epoch=False)
]
train_cfg = dict(max_iters=max_iters)
