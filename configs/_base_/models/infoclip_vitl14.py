# InfoCLIP on CLIP ViT-L/14 at 336 pixels: the same 24 x 24 grid as ViT-B/16 at 384.
_base_ = ['./infoclip_vitb16.py']
model = dict(backbone=dict(model_name='ViT-L-14-336-quickgelu'), input_size=336)
