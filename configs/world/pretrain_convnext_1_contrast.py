# Pretraining of the small ConvNeXt CLIP, first stage: as pretrain_1_contrast.py.
# python tools/pretrain_clip.py configs/world/pretrain_convnext_{1_contrast,2_dense}.py
_base_ = ['./pretrain_1_contrast.py', './_base_/convnext_clip.py']
model = dict(backbone=dict(model_name=_base_.convnext))
