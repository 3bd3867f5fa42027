# CAT-Seg with CLIP ViT-B/16, trained on COCO-Stuff.
# python tools/train.py configs/catseg_vitb16_coco-stuff.py
_base_ = [
    '_base_/models/catseg_vitb16.py',
    '_base_/datasets/coco-stuff_384x384.py',
    '_base_/schedules/schedule_80k.py',
    '_base_/default_runtime.py',
]
