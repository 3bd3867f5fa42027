# CAT-Seg with FiSeR (our reading) beside its loss, trained on COCO-Stuff.
# python tools/train.py configs/fisa/catseg-fiser_vitb16_coco-stuff.py
_base_ = ['../catseg_vitb16_coco-stuff.py']
model = dict(loss_aux=[dict(type='FiSeRLoss', loss_weight=0.1)])
