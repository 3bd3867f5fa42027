# FC-CLIP's recipe: AdamW, steps at nine tenths and behind, 16 images in all.
_base_ = ['../../maft-plus/_base_/recipe.py']
max_iters = 368750
optim_wrapper = dict(optimizer=dict(weight_decay=0.05))
param_scheduler = [
    dict(type='LinearLR', start_factor=1.0, begin=0, end=10, by_epoch=False),
    dict(type='MultiStepLR', milestones=[327778, 355092], gamma=0.1, by_epoch=False),
]
train_cfg = dict(max_iters=max_iters)
