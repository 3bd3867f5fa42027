# CAT-Seg with CLIP ViT-L/14 at 336 pixels, evaluated on PASCAL Context (459 classes).
# python tools/test.py configs/catseg_vitl14_pc459.py CHECKPOINT
_base_ = [
    '_base_/models/catseg_vitl14.py',
    '_base_/datasets/pc459_640.py',
    '_base_/schedules/schedule_80k.py',
    '_base_/default_runtime.py',
]
