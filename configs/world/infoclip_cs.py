# The guarded model of the composed world: InfoCLIP's transfer with a divergence in place of Eq. 11.
# python tools/train.py configs/world/infoclip_cs.py
_base_ = ['./_base_/segmentation.py']
model = dict(loss_distill=[dict(type='CauchySchwarzLoss')])
custom_hooks = [*_base_.custom_hooks, dict(type='FrozenTeacherHook')]
