# MAFT+'s Representation Compensation of dense image embeddings; composed world.
# python tools/train.py configs/world/maft_plus.py
_base_ = ['./_base_/segmentation.py']
model = dict(loss_distill=[dict(type='RepresentationCompensationLoss', loss_weight=0.1)])
custom_hooks = [*_base_.custom_hooks, dict(type='FrozenTeacherHook')]
