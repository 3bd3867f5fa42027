# ClearCLIP with CLIP ViT-B/16 on COCO-Object: the 80 things of COCO-Stuff and the background.
# python tools/test.py configs/clearclip/clearclip_vitb16_coco_object.py
_base_ = ['_base_/clearclip_vitb16.py']
model = dict(decode_head=dict(threshold=0.4))
test_dataloader = dict(
    dataset=dict(
        type='COCOObjectDataset',  # reads the label maps of COCO-Stuff
        data_root='data/coco_stuff164k',
        data_prefix=dict(img_path='images/val2017', seg_map_path='annotations/val2017'),
        pipeline=_base_.test_pipeline,
    )
)
custom_hooks = [dict(type='VocabularyHook')]
