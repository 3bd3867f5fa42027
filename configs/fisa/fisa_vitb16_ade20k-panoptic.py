# FISA (our reading) with CLIP ViT-B/16, evaluated on ADE20K panoptic.
# python tools/test.py configs/fisa/fisa_vitb16_ade20k-panoptic.py CHECKPOINT --bottleneck
_base_ = [
    './_base_/fisa_vitb16.py',
    '../maft-plus/_base_/ade20k-panoptic_800.py',
    './_base_/recipe.py',
    '../_base_/default_runtime.py',
]
model = dict(test_cfg=dict(panoptic=True))
_words = dict(test='maftp_ade150')
custom_hooks = [*_base_.custom_hooks, dict(type='VocabularyHook', vocabularies=_words)]
