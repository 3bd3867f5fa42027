# InfoCLIP with SigLIP 2 L/16 at 384 pixels, trained on COCO-Stuff.
# python tools/train.py configs/infoclip_siglip2-l16_coco-stuff.py
_base_ = [
    '_base_/models/infoclip_siglip2-l16.py',
    '_base_/datasets/coco-stuff_384x384.py',
    '_base_/schedules/schedule_80k.py',
    '_base_/default_runtime.py',
]
