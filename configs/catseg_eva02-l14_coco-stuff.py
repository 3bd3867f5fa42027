# CAT-Seg with EVA02-CLIP L/14 at 336 pixels, trained on COCO-Stuff.
# python tools/train.py configs/catseg_eva02-l14_coco-stuff.py
_base_ = [
    '_base_/models/catseg_eva02-l14.py',
    '_base_/datasets/coco-stuff_384x384.py',
    '_base_/schedules/schedule_80k.py',
    '_base_/default_runtime.py',
]
