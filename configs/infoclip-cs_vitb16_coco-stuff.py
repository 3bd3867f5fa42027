# InfoCLIP with the Cauchy-Schwarz divergence in place of Eq. 11; CLIP ViT-B/16, COCO-Stuff.
# python tools/train.py configs/infoclip-cs_vitb16_coco-stuff.py
# LPAM learns from L_c, as published, but not from the transfer, which it would satisfy itself.
_base_ = ['./infoclip_vitb16_coco-stuff.py']
model = dict(loss_mi=dict(_delete_=True, type='CauchySchwarzLoss', maps='detached'))
