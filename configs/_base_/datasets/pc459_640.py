# Training on COCO-Stuff, test on the validation set of PASCAL Context with all 459 classes.
_base_ = ['./coco-stuff_384x384.py']
test_dataloader = dict(
    dataset=dict(
        _delete_=True,
        type='PascalContext459Dataset',
        data_root='data/VOCdevkit/VOC2010',
        data_prefix=dict(img_path='JPEGImages', seg_map_path='annotations_detectron2/pc459_val'),
        pipeline=_base_.test_pipeline,
    )
)
