# FCN head on the ninth block of CLIP ViT-B/16, closed-set ADE20K.
# python tools/train.py configs/compose/fcn_clip-vitb16_ade20k.py
_base_ = ['./_base_/clip_vitb16.py', './_base_/ade20k_512.py', '../_base_/default_runtime.py']
model = dict(
    decode_head=dict(type='FCNHead', in_channels=768, in_index=2, channels=256, num_classes=150)
)
