# Mutual information of plain cosine cost volumes: L_d without LPAM; composed world.
# python tools/train.py configs/world/cost_volume_mi.py
_base_ = ['./_base_/segmentation.py']
model = dict(loss_distill=[dict(type='MITransferLoss')])
custom_hooks = [*_base_.custom_hooks, dict(type='FrozenTeacherHook')]
