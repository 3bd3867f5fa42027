# Training on COCO-Stuff, test on the validation set of ADE20K's full release with 847 classes.
_base_ = ['./coco-stuff_384x384.py']
test_dataloader = dict(
    dataset=dict(
        _delete_=True,
        type='ADE20K847Dataset',
        data_root='data/ADE20K_2021_17_01',
        data_prefix=dict(
            img_path='images_detectron2/validation',
            seg_map_path='annotations_detectron2/validation',
        ),
        pipeline=_base_.test_pipeline,
    )
)
