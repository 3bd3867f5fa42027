# FISA (our reading) trained on the true masks, tested on those of the generator, as MaskCLIP++ is.
# python tools/train.py configs/fisa/fisa-masks_vitl14_coco-panoptic.py --amp
_base_ = ['./fisa_vitl14_coco-panoptic.py']
model = dict(mask_generator=dict(in_training=False))
