# FISA (our reading) with FiSeR beside its loss, trained on COCO panoptic, 4 images in all.
# python tools/train.py configs/fisa/fisa-fiser_vitl14_coco-panoptic.py --amp
_base_ = ['./fisa_vitl14_coco-panoptic.py']
model = dict(loss_aux=[dict(type='FiSeRLoss', loss_weight=0.1)])
