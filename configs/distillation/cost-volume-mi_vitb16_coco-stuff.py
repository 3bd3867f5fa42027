# Mutual information of plain cosine cost volumes: L_d without LPAM; CLIP ViT-B/16, COCO-Stuff.
# python tools/train.py configs/distillation/cost-volume-mi_vitb16_coco-stuff.py
_base_ = ['../catseg_vitb16_coco-stuff.py']
model = dict(loss_distill=[dict(type='MITransferLoss')])
custom_hooks = [dict(type='FrozenTeacherHook'), *_base_.custom_hooks]
