# InfoCLIP on CLIP ViT-L/14 at 336 pixels: CAT-Seg plus a frozen teacher, LPAM and two losses.
_base_ = ['./catseg_vitl14.py']
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
