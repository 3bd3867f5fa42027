# InfoCLIP with CLIP ViT-B/16, evaluated on PASCAL Context (459 classes).
# python tools/test.py configs/infoclip_vitb16_pc459.py CHECKPOINT
_base_ = [
    '_base_/models/infoclip_vitb16.py',
    '_base_/datasets/pc459_640.py',
    '_base_/schedules/schedule_80k.py',
    '_base_/default_runtime.py',
]
