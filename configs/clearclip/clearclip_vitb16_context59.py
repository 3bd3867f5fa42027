# ClearCLIP with CLIP ViT-B/16 on PASCAL Context: 59 classes, the background ignored.
# python tools/test.py configs/clearclip/clearclip_vitb16_context59.py
_base_ = ['_base_/clearclip_vitb16.py']
test_dataloader = dict(
    dataset=dict(
        type='VocabularyDataset',
        vocabulary='clearclip_context59',
        reduce_zero_label=True,  # label 0 is the background: ignored
        data_root='data/VOCdevkit/VOC2010',
        data_prefix=dict(img_path='JPEGImages', seg_map_path='SegmentationClassContext'),
        ann_file='ImageSets/SegmentationContext/val.txt',
        pipeline=_base_.test_pipeline,
    )
)
custom_hooks = [dict(type='VocabularyHook')]
