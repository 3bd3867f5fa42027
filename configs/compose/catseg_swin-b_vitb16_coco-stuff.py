# CAT-Seg guided by a Swin-B beside CLIP ViT-B/16, as in its first version.
# python tools/train.py configs/compose/catseg_swin-b_vitb16_coco-stuff.py
_base_ = [
    './_base_/catseg_vitb16_swin-b.py',
    '../_base_/datasets/coco-stuff_384x384.py',
    '../_base_/schedules/schedule_80k.py',
    '../_base_/default_runtime.py',
]
