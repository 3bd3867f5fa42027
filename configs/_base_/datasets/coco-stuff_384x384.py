# Training, validation and test on COCO-Stuff 164k (171 classes).
train_pipeline = [
    dict(type='CheckInputs'),
    dict(type='LoadImageFromFile'),
    dict(type='LoadLabelMap'),
    dict(type='CheckInputs'),
    # Shortest side 384, however long the other becomes.
    dict(type='Resize', scale=(100000, 384), keep_ratio=True),
    dict(type='RandomCrop', crop_size=(384, 384), cat_max_ratio=1.0),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PhotoMetricDistortion'),
    dict(type='PackSegInputs'),
]
# Shortest side 640, longest at most 2560, antialiased, as CAT-Seg's published evaluation; the
# model then resizes to its own working size. The label map stays as it is.
test_resize = dict(type='Resize', scale=(2560, 640), keep_ratio=True, backend='pillow')
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='CheckInputs'),
    test_resize,
    dict(type='LoadLabelMap'),
    dict(type='CheckInputs'),
    dict(type='PackSegInputs'),
]
tta_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='CheckInputs'),
    dict(
        type='TestTimeAug',
        transforms=[
            [test_resize],
            [dict(type='RandomFlip', prob=0.0), dict(type='RandomFlip', prob=1.0)],
            [dict(type='LoadLabelMap')],
            [dict(type='PackSegInputs')],
        ],
    ),
]

# The recipe trains on 4 images in total. batch_size is per GPU: 4 on one, 2 on two, 1 on four.
train_dataloader = dict(
    batch_size=4,
    num_workers=4,
    persistent_workers=True,
    sampler=dict(type='InfiniteSampler', shuffle=True),
    dataset=dict(
        type='COCOStuffDataset',
        data_root='data/coco_stuff164k',
        data_prefix=dict(img_path='images/train2017', seg_map_path='annotations/train2017'),
        pipeline=train_pipeline,
    ),
)
val_dataloader = dict(
    batch_size=1,
    num_workers=4,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type='COCOStuffDataset',
        data_root='data/coco_stuff164k',
        data_prefix=dict(img_path='images/val2017', seg_map_path='annotations/val2017'),
        pipeline=test_pipeline,
    ),
)
test_dataloader = val_dataloader
val_evaluator = dict(type='OpenVocabIoUMetric', iou_metrics=['mIoU'])
test_evaluator = val_evaluator
