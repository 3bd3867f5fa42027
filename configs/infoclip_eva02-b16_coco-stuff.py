# InfoCLIP with EVA02-CLIP B/16, trained on COCO-Stuff.
# python tools/train.py configs/infoclip_eva02-b16_coco-stuff.py
_base_ = [
    '_base_/models/infoclip_eva02-b16.py',
    '_base_/datasets/coco-stuff_384x384.py',
    '_base_/schedules/schedule_80k.py',
    '_base_/default_runtime.py',
]
