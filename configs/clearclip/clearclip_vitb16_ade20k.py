# ClearCLIP with CLIP ViT-B/16 on ADE20K-150.
# python tools/test.py configs/clearclip/clearclip_vitb16_ade20k.py
_base_ = ['_base_/clearclip_vitb16.py']
test_dataloader = dict(
    dataset=dict(
        type='ADE20KDataset',
        data_root='data/ade/ADEChallengeData2016',
        data_prefix=dict(img_path='images/validation', seg_map_path='annotations/validation'),
        reduce_zero_label=True,  # label 0 is 'other': ignored
        pipeline=_base_.test_pipeline,
    )
)
custom_hooks = [dict(type='VocabularyHook', vocabularies=dict(test='clearclip_ade150'))]
