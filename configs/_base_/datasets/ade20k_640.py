# Training on COCO-Stuff, test on the validation set of ADE20K (150 classes).
_base_ = ['./coco-stuff_384x384.py']
test_dataloader = dict(
    dataset=dict(
        _delete_=True,
        type='ADE20KDataset',
        data_root='data/ade/ADEChallengeData2016',
        data_prefix=dict(img_path='images/validation', seg_map_path='annotations/validation'),
        reduce_zero_label=True,  # label 0 is 'other': ignored
        pipeline=_base_.test_pipeline,
    )
)
