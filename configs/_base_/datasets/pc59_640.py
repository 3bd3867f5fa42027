# Training on COCO-Stuff, test on the validation set of PASCAL Context with 59 classes.
_base_ = ['./coco-stuff_384x384.py']
test_dataloader = dict(
    dataset=dict(
        _delete_=True,
        type='VocabularyDataset',
        vocabulary='pc59',  # mmseg's own names but for 'diningtable', which mmseg calls 'table'
        data_root='data/VOCdevkit/VOC2010',
        data_prefix=dict(img_path='JPEGImages', seg_map_path='SegmentationClassContext'),
        ann_file='ImageSets/SegmentationContext/val.txt',
        reduce_zero_label=True,  # label 0 is the background: ignored
        pipeline=_base_.test_pipeline,
    )
)
