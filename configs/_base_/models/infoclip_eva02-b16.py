# InfoCLIP on EVA02-CLIP B/16. For DeCLIP's weights: image_weights=FILE and dense_mode='declip'.
_base_ = ['./infoclip_vitb16.py']
model = dict(backbone=dict(model_name='EVA02-B-16', pretrained='merged2b_s8b_b131k'))
