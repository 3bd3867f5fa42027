# CAT-Seg on EVA02-CLIP L/14 at 336 pixels: the same 24 x 24 grid as B/16 at 384.
_base_ = ['./catseg_vitb16.py']
model = dict(
    backbone=dict(model_name='EVA02-L-14-336', pretrained='merged2b_s6b_b61k'),
    input_size=336,
)
