# InfoCLIP with CLIP ViT-B/16, trained on COCO-Stuff; of each image 32 classes are decoded.
# python tools/train.py configs/infoclip-compact_vitb16_coco-stuff.py
_base_ = ['./infoclip_vitb16_coco-stuff.py']
# 32 of 171: those that the positions vote for, in training those of the labels first.
model = dict(decode_head=dict(num_decoded=32, num_decoded_train=32))
