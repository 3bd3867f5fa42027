# KL in place of L_d: class distributions of the relation maps of LPAM; CLIP ViT-B/16, COCO-Stuff.
# python tools/train.py configs/distillation/lpam-kl_vitb16_coco-stuff.py
_base_ = ['../catseg_vitb16_coco-stuff.py']
model = dict(neck=dict(type='LPAM'), loss_distill=[dict(type='KLDistillationLoss')])
custom_hooks = [dict(type='FrozenTeacherHook'), *_base_.custom_hooks]
