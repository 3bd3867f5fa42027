# InfoCLIP on CLIP ViT-B/16: CAT-Seg plus a frozen teacher, LPAM and two losses.
_base_ = ['./catseg_vitb16.py']
model = dict(
    neck=dict(type='LPAM'),
    loss_ib=dict(type='InfoBottleneckLoss', loss_weight=1.0),
    loss_mi=dict(type='MITransferLoss', loss_weight=1.0),
)
custom_hooks = [
    dict(type='FrozenTeacherHook'),
    dict(type='VocabularyHook'),
    dict(type='NonFiniteLossHook'),
]
