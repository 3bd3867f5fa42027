# DeepLabV3+ with ResNet-50 on ADE20K, with InfoCLIP's teacher, LPAM and losses beside it.
# python tools/train.py configs/compose/infoclip_deeplabv3plus_r50_ade20k.py
_base_ = [
    './_base_/deeplabv3plus_r50.py',
    './_base_/infoclip.py',
    './_base_/ade20k_512.py',
    '../_base_/default_runtime.py',
]
model = dict(
    _delete_=True,
    type='DistilledSegmentor',
    student=_base_.model,
    distillation=dict(
        **_base_.distillation,
        dense=dict(module='decode_head.conv_seg', side='input'),
        channels=512,
    ),
)
