# ClearCLIP with CLIP ViT-B/16 on COCO-Stuff 164k.
# python tools/test.py configs/clearclip/clearclip_vitb16_coco-stuff.py
_base_ = ['_base_/clearclip_vitb16.py']
test_dataloader = dict(
    dataset=dict(
        type='COCOStuffDataset',
        data_root='data/coco_stuff164k',
        data_prefix=dict(img_path='images/val2017', seg_map_path='annotations/val2017'),
        pipeline=_base_.test_pipeline,
    )
)
custom_hooks = [dict(type='VocabularyHook', vocabularies=dict(test='clearclip_coco'))]
