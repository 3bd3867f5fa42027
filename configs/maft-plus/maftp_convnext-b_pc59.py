# MAFT+ with CLIP ConvNeXt-B, evaluated on PASCAL Context (59 classes).
# python tools/test.py configs/maft-plus/maftp_convnext-b_pc59.py CHECKPOINT
_base_ = [
    './_base_/maftp_convnext-b.py',
    '../_base_/datasets/pc59_640.py',
    './_base_/recipe.py',
    '../_base_/default_runtime.py',
]
train_dataloader = dict(batch_size=8, dataset=dict(pipeline=_base_.train_800))
val_dataloader = dict(dataset=dict(pipeline=_base_.test_800))
test_dataloader = dict(dataset=dict(pipeline=_base_.test_800))
_words = dict(train='maftp_coco', val='maftp_coco', test='maftp_pc59')
custom_hooks = [*_base_.custom_hooks, dict(type='VocabularyHook', vocabularies=_words)]
