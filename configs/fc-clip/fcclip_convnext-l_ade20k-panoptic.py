# FC-CLIP with CLIP ConvNeXt-L, evaluated on ADE20K panoptic.
# python tools/test.py configs/fc-clip/fcclip_convnext-l_ade20k-panoptic.py CHECKPOINT
_base_ = [
    './_base_/fcclip_convnext-l.py',
    '../maft-plus/_base_/ade20k-panoptic_800.py',
    './_base_/recipe.py',
    '../_base_/default_runtime.py',
]
model = dict(test_cfg=dict(panoptic=True))
_words = dict(test='maftp_ade150')
custom_hooks = [*_base_.custom_hooks, dict(type='VocabularyHook', vocabularies=_words)]
