# FISA (our reading) with CLIP ViT-B/16, evaluated on PASCAL VOC (20 classes).
# python tools/test.py configs/fisa/fisa_vitb16_voc20.py CHECKPOINT
_base_ = [
    './_base_/fisa_vitb16.py',
    '../_base_/datasets/voc20_640.py',
    './_base_/recipe.py',
    '../_base_/default_runtime.py',
]
test_dataloader = dict(dataset=dict(pipeline=_base_.test_800))
_words = dict(test='maftp_voc20')
custom_hooks = [*_base_.custom_hooks, dict(type='VocabularyHook', vocabularies=_words)]
