# MasQCLIP in our implementation: no words are read. Trained on COCO panoptic, 4 images in all.
# python tools/train.py configs/fisa/masqclip_vitl14_coco-panoptic.py --amp
_base_ = ['./fisa_vitl14_coco-panoptic.py']
model = dict(backbone=dict(word_blocks=0.0))
