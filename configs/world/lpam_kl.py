# KL in place of L_d: class distributions of the relation maps of LPAM; composed world.
# python tools/train.py configs/world/lpam_kl.py
_base_ = ['./_base_/segmentation.py']
model = dict(neck=dict(type='LPAM'), loss_distill=[dict(type='KLDistillationLoss')])
custom_hooks = [*_base_.custom_hooks, dict(type='FrozenTeacherHook')]
