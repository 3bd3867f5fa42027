# KL between class distributions of cosines, as sharp as CLIP's; CLIP ViT-B/16, COCO-Stuff.
# python tools/train.py configs/distillation/kl_vitb16_coco-stuff.py
# CLIP multiplies cosines by 100: the temperature is 1 / 100.
_base_ = ['../catseg_vitb16_coco-stuff.py']
model = dict(loss_distill=[dict(type='KLDistillationLoss', temperature=0.01)])
custom_hooks = [dict(type='FrozenTeacherHook'), *_base_.custom_hooks]
