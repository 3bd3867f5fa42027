# MAFT+ with CLIP ConvNeXt-L and the panoptic form of its transfer, evaluated on ADE20K panoptic.
# python tools/test.py configs/maft-plus/maftp_convnext-l_ade20k-panoptic.py CHECKPOINT
_base_ = [
    './_base_/maftp_convnext-l.py',
    './_base_/ade20k-panoptic_800.py',
    './_base_/recipe.py',
    '../_base_/default_runtime.py',
]
model = dict(
    decode_head=dict(transfer=dict(form='panoptic'), score=0.2, overlap=0.7),
    test_cfg=dict(panoptic=True),
)
_words = dict(test='maftp_ade150')
custom_hooks = [*_base_.custom_hooks, dict(type='VocabularyHook', vocabularies=_words)]
