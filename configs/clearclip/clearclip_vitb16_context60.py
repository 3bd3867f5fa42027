# ClearCLIP with CLIP ViT-B/16 on PASCAL Context: 59 classes and the background.
# python tools/test.py configs/clearclip/clearclip_vitb16_context60.py
_base_ = ['_base_/clearclip_vitb16.py']
model = dict(decode_head=dict(threshold=0.15))
test_dataloader = dict(
    dataset=dict(
        type='PascalContextDataset',
        data_root='data/VOCdevkit/VOC2010',
        data_prefix=dict(img_path='JPEGImages', seg_map_path='SegmentationClassContext'),
        ann_file='ImageSets/SegmentationContext/val.txt',
        pipeline=_base_.test_pipeline,
    )
)
custom_hooks = [dict(type='VocabularyHook', vocabularies=dict(test='clearclip_context60'))]
