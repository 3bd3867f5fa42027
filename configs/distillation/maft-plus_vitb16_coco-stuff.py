# MAFT+'s Representation Compensation of dense image embeddings; CLIP ViT-B/16, COCO-Stuff.
# python tools/train.py configs/distillation/maft-plus_vitb16_coco-stuff.py
_base_ = ['../catseg_vitb16_coco-stuff.py']
model = dict(loss_distill=[dict(type='RepresentationCompensationLoss', loss_weight=0.1)])
custom_hooks = [dict(type='FrozenTeacherHook'), *_base_.custom_hooks]
