# InfoCLIP on the composed world: frozen teacher, LPAM, both losses.
# python tools/train.py configs/world/infoclip.py
_base_ = ['./_base_/segmentation.py']
model = dict(
    neck=dict(type='LPAM'),
    loss_ib=dict(type='InfoBottleneckLoss', loss_weight=1.0),
    loss_mi=dict(type='MITransferLoss', loss_weight=1.0),
)
custom_hooks = [*_base_.custom_hooks, dict(type='FrozenTeacherHook')]
