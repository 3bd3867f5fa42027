# ClearCLIP with CLIP ViT-B/16 on Cityscapes.
# python tools/test.py configs/clearclip/clearclip_vitb16_cityscapes.py
_base_ = ['_base_/clearclip_vitb16.py']
model = dict(test_cfg=dict(window=224))
test_dataloader = dict(
    dataset=dict(
        type='CityscapesDataset',
        data_root='data/cityscapes',
        data_prefix=dict(img_path='leftImg8bit/val', seg_map_path='gtFine/val'),
        pipeline=_base_.test_pipeline,
    )
)
custom_hooks = [dict(type='VocabularyHook', vocabularies=dict(test='clearclip_cityscapes'))]
