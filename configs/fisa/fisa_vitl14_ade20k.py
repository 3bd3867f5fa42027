# FISA (our reading) with CLIP ViT-L/14, evaluated on ADE20K.
# python tools/test.py configs/fisa/fisa_vitl14_ade20k.py CHECKPOINT
_base_ = [
    './_base_/fisa_vitl14.py',
    '../_base_/datasets/ade20k_640.py',
    './_base_/recipe.py',
    '../_base_/default_runtime.py',
]
test_dataloader = dict(dataset=dict(pipeline=_base_.test_800))
_words = dict(test='maftp_ade150')
custom_hooks = [*_base_.custom_hooks, dict(type='VocabularyHook', vocabularies=_words)]
