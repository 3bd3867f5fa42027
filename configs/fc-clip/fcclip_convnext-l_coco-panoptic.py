# FC-CLIP with CLIP ConvNeXt-L, trained on COCO panoptic; batch_size is per GPU, 16 in all.
# python tools/train.py configs/fc-clip/fcclip_convnext-l_coco-panoptic.py --amp
_base_ = [
    './_base_/fcclip_convnext-l.py',
    './_base_/coco-panoptic_1024.py',
    './_base_/recipe.py',
    '../_base_/default_runtime.py',
]
model = dict(test_cfg=dict(panoptic=True))
_words = dict.fromkeys(('train', 'val', 'test'), 'maftp_coco_panoptic')
custom_hooks = [*_base_.custom_hooks, dict(type='VocabularyHook', vocabularies=_words)]
