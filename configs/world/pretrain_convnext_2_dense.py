# Pretraining of the small ConvNeXt CLIP, second stage: as pretrain_2_dense.py.
# python tools/pretrain_clip.py configs/world/pretrain_convnext_{1_contrast,2_dense}.py
_base_ = ['./pretrain_2_dense.py', './_base_/convnext_clip.py']
model = dict(backbone=dict(model_name=_base_.convnext))
