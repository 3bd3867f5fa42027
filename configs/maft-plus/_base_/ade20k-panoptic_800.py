# ADE20K panoptic: 150 classes, 100 of them things; trained on COCO-Stuff.
_base_ = ['../../_base_/datasets/coco-stuff_384x384.py']
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='Resize', scale=(1333, 800), keep_ratio=True),
    dict(type='LoadPanoptic'),
    dict(type='PackPanopticInputs'),
]
test_dataloader = dict(
    dataset=dict(
        _delete_=True,
        type='PanopticDataset',
        data_root='data/ade/ADEChallengeData2016',
        ann_file='ade20k_panoptic_val.json',
        data_prefix=dict(img_path='images/validation', seg_map_path='ade20k_panoptic_val'),
        pipeline=test_pipeline,
    )
)
test_evaluator = dict(_delete_=True, type='PanopticMetric')
