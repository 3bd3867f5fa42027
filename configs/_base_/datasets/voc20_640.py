# Training on COCO-Stuff, test on the validation set of PASCAL VOC 2012: 20 classes; the background,
# which is not among them, is ignored.
_base_ = ['./coco-stuff_384x384.py']
test_dataloader = dict(
    dataset=dict(
        _delete_=True,
        type='PascalVOC20Dataset',
        data_root='data/VOCdevkit/VOC2012',
        data_prefix=dict(img_path='JPEGImages', seg_map_path='SegmentationClass'),
        ann_file='ImageSets/Segmentation/val.txt',
        pipeline=_base_.test_pipeline,
    )
)
