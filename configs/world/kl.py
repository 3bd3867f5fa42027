# KL between class distributions of cosines, as sharp as CLIP's; composed world.
# python tools/train.py configs/world/kl.py
# Its CLIP multiplies cosines by 26: the temperature is about 1 / 26.
_base_ = ['./_base_/segmentation.py']
model = dict(loss_distill=[dict(type='KLDistillationLoss', temperature=0.04)])
custom_hooks = [*_base_.custom_hooks, dict(type='FrozenTeacherHook')]
