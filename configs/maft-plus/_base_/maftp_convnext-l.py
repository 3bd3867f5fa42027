# MAFT+ on CLIP ConvNeXt-L. Widths follow from the built backbone.
_base_ = ['../../_base_/clip_preprocessor.py']
model = dict(
    type='OpenVocabSegmentor',
    data_preprocessor=dict(size_divisor=32),
    backbone=dict(
        type='CLIPDualEncoder',
        model_name='convnext_large_d_320',
        pretrained='laion2b_s29b_b131k_ft_soup',
        finetune='trunk',  # stem and stages of the image tower
    ),
    decode_head=dict(
        type='MaskClassificationHead',
        proposals=dict(type='Mask2FormerProposals', num_queries=100),
        transfer=dict(type='ContentDependentTransfer', num_heads=8, form='semantic'),
        loss_masks=dict(type='Mask2FormerCriterion'),
        loss_mask_aware=dict(type='MaskAwareLoss', loss_weight=1.0),
    ),
    loss_distill=[
        dict(type='RepresentationCompensationLoss', compares='trunk', loss_weight=0.1),
    ],
    input_size=None,  # images keep their size and are padded to multiples of 32
    templates='vild',
    synonyms='max',  # of the words of a class the best one counts
    test_cfg=dict(mode='whole'),
)
custom_hooks = [dict(type='FrozenTeacherHook'), dict(type='NonFiniteLossHook')]
