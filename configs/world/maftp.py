# MAFT+ on the composed world.
# python tools/train.py configs/world/maftp.py
_base_ = ['./_base_/masks.py']
custom_hooks = [*_base_.custom_hooks, dict(type='FrozenTeacherHook')]
