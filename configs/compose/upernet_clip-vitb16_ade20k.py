# UPerNet on a pyramid of CLIP ViT-B/16, closed-set ADE20K.
# python tools/train.py configs/compose/upernet_clip-vitb16_ade20k.py
_base_ = [
    './_base_/clip_vitb16_pyramid.py',
    './_base_/ade20k_512.py',
    '../_base_/default_runtime.py',
]
model = dict(
    decode_head=dict(
        type='UPerHead',
        in_channels=[512, 512, 512, 512],
        in_index=[0, 1, 2, 3],
        channels=512,
        num_classes=150,
    )
)
