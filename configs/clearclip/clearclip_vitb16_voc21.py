# ClearCLIP with CLIP ViT-B/16 on PASCAL VOC 2012: 20 classes and the background.
# python tools/test.py configs/clearclip/clearclip_vitb16_voc21.py
_base_ = ['_base_/clearclip_vitb16.py']
model = dict(decode_head=dict(threshold=0.5))
test_dataloader = dict(
    dataset=dict(
        type='PascalVOCDataset',
        data_root='data/VOCdevkit/VOC2012',
        data_prefix=dict(img_path='JPEGImages', seg_map_path='SegmentationClass'),
        ann_file='ImageSets/Segmentation/val.txt',
        pipeline=_base_.test_pipeline,
    )
)
custom_hooks = [dict(type='VocabularyHook', vocabularies=dict(test='clearclip_voc21'))]
