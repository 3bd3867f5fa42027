# MAFT+ with CLIP ConvNeXt-L, trained on COCO-Stuff; batch_size is per GPU, 8 in all.
# python tools/train.py configs/maft-plus/maftp_convnext-l_coco-stuff.py --amp
_base_ = [
    './_base_/maftp_convnext-l.py',
    '../_base_/datasets/coco-stuff_384x384.py',
    './_base_/recipe.py',
    '../_base_/default_runtime.py',
]
train_dataloader = dict(batch_size=8, dataset=dict(pipeline=_base_.train_800))
val_dataloader = dict(dataset=dict(pipeline=_base_.test_800))
test_dataloader = val_dataloader
_words = dict.fromkeys(('train', 'val', 'test'), 'maftp_coco')
custom_hooks = [*_base_.custom_hooks, dict(type='VocabularyHook', vocabularies=_words)]
