# InfoCLIP with CLIP ViT-L/14 at 336 pixels, evaluated on PASCAL VOC (20 classes and background).
# python tools/test.py configs/infoclip_vitl14_voc20b.py CHECKPOINT
_base_ = [
    '_base_/models/infoclip_vitl14.py',
    '_base_/datasets/voc20b_640.py',
    '_base_/schedules/schedule_80k.py',
    '_base_/default_runtime.py',
]
