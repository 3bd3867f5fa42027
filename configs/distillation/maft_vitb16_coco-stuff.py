# MAFT's self-distillation: SmoothL1 between dense image embeddings; CLIP ViT-B/16, COCO-Stuff.
# python tools/train.py configs/distillation/maft_vitb16_coco-stuff.py
_base_ = ['../catseg_vitb16_coco-stuff.py']
model = dict(loss_distill=[dict(type='SelfDistillationLoss')])
custom_hooks = [dict(type='FrozenTeacherHook'), *_base_.custom_hooks]
