# CAT-Seg with CLIP ViT-B/16, evaluated on ADE20K-150.
# python tools/test.py configs/catseg_vitb16_ade20k.py CHECKPOINT
_base_ = [
    '_base_/models/catseg_vitb16.py',
    '_base_/datasets/ade20k_640.py',
    '_base_/schedules/schedule_80k.py',
    '_base_/default_runtime.py',
]
