# MAFT's self-distillation: SmoothL1 between dense image embeddings; composed world.
# python tools/train.py configs/world/maft.py
_base_ = ['./_base_/segmentation.py']
model = dict(loss_distill=[dict(type='SelfDistillationLoss')])
custom_hooks = [*_base_.custom_hooks, dict(type='FrozenTeacherHook')]
