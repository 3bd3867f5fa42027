# Cauchy-Schwarz divergence of the positions' Gram matrices, on plain cosines; CLIP ViT-B/16.
# python tools/train.py configs/distillation/cauchy-schwarz_vitb16_coco-stuff.py
_base_ = ['../catseg_vitb16_coco-stuff.py']
model = dict(loss_distill=[dict(type='CauchySchwarzLoss')])
custom_hooks = [dict(type='FrozenTeacherHook'), *_base_.custom_hooks]
