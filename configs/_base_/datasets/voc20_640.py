# Training on COCO-Stuff, test on the validation set of PASCAL VOC 2012: 20 classes; the background,
# which is not among them, is ignored.
_base_ = ['./coco-stuff_384x384.py']
classes = ('aeroplane', 'bicycle', 'bird', 'boat', 'bottle', 'bus', 'car', 'cat', 'chair', 'cow')
classes += ('diningtable', 'dog', 'horse', 'motorbike', 'person', 'pottedplant', 'sheep', 'sofa')
classes += ('train', 'tvmonitor')
test_dataloader = dict(
    dataset=dict(
        _delete_=True,
        type='PascalVOCDataset',
        metainfo=dict(classes=classes),
        data_root='data/VOCdevkit/VOC2012',
        data_prefix=dict(img_path='JPEGImages', seg_map_path='SegmentationClass'),
        ann_file='ImageSets/Segmentation/val.txt',
        pipeline=_base_.test_pipeline,
    )
)
