# FISA (our reading) with CLIP ViT-L/14, trained on COCO panoptic; batch_size is per GPU, 4 in all.
# python tools/train.py configs/fisa/fisa_vitl14_coco-panoptic.py --amp
_base_ = [
    './_base_/fisa_vitl14.py',
    './_base_/coco-panoptic_800.py',
    './_base_/recipe.py',
    '../_base_/default_runtime.py',
]
model = dict(test_cfg=dict(panoptic=True))
_words = dict.fromkeys(('train', 'val', 'test'), 'maftp_coco_panoptic')
custom_hooks = [*_base_.custom_hooks, dict(type='VocabularyHook', vocabularies=_words)]
