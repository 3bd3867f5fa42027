# FISA (our reading) on CLIP ViT-B/16 at 384 pixels: the same 24 x 24 grid.
_base_ = ['./fisa_vitl14.py']
model = dict(backbone=dict(model_name='ViT-B-16-quickgelu'), input_size=384)
