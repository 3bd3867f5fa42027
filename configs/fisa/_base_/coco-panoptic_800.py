# COCO panoptic as FC-CLIP has it, in squares of 800 pixels: CLIP sees training images undistorted.
_base_ = ['../../fc-clip/_base_/coco-panoptic_1024.py']
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadPanoptic'),
    dict(type='Resize', scale=(1333, 800), keep_ratio=True),
    dict(type='RandomCrop', crop_size=(800, 800)),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PackPanopticInputs'),
]
train_dataloader = dict(batch_size=4, dataset=dict(pipeline=train_pipeline))
