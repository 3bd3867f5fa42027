# InfoCLIP with CLIP ViT-B/16, evaluated on PASCAL VOC (20 classes and background).
# python tools/test.py configs/infoclip_vitb16_voc20b.py CHECKPOINT
_base_ = [
    '_base_/models/infoclip_vitb16.py',
    '_base_/datasets/voc20b_640.py',
    '_base_/schedules/schedule_80k.py',
    '_base_/default_runtime.py',
]
