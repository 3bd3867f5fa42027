# SegFormer with MiT-B0 on ADE20K, with InfoCLIP's teacher, LPAM and losses beside it.
# python tools/train.py configs/compose/infoclip_segformer_mit-b0_ade20k.py
_base_ = [
    './_base_/segformer_mit-b0.py',
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
        channels=256,
    ),
)
