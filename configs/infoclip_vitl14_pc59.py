# InfoCLIP with CLIP ViT-L/14 at 336 pixels, evaluated on PASCAL Context (59 classes).
# python tools/test.py configs/infoclip_vitl14_pc59.py CHECKPOINT
_base_ = [
    '_base_/models/infoclip_vitl14.py',
    '_base_/datasets/pc59_640.py',
    '_base_/schedules/schedule_80k.py',
    '_base_/default_runtime.py',
]
