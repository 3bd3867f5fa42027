# A toy-sized MAFT+ learns the three ADE20K images under tests/data by heart (random weights).
# python tools/train.py configs/toy/maftp_toy_ade-3-images.py
_base_ = ['./infoclip_toy_ade-3-images.py']
side = (128, 128)
max_iters = 300
sizes = dict(depths=(1, 1, 2, 1), dims=(16, 32, 64, 128))
vision_cfg = dict(
    timm_model_name='convnext_atto', timm_pool='', timm_proj='mlp', image_size=128, convnext=sizes
)
clip = dict(_delete_=True, embed_dim=64, vision_cfg=vision_cfg, text_cfg=_base_.text_cfg)
model = dict(
    data_preprocessor=dict(size=side),
    backbone=dict(model_name=clip, finetune='full'),
    neck=None,
    decode_head=dict(
        _delete_=True,
        type='MaskClassificationHead',
        proposals=dict(
            type='Mask2FormerProposals',
            num_queries=20,
            hidden_dim=64,
            num_heads=4,
            encoder_layers=2,
            encoder_ffn=128,
            decoder_layers=3,
            decoder_ffn=128,
        ),
        transfer=dict(type='ContentDependentTransfer', num_heads=4, form='panoptic'),
        loss_masks=dict(type='Mask2FormerCriterion', num_points=1024),
        loss_mask_aware=dict(type='MaskAwareLoss'),
    ),
    loss_ib=None,
    loss_mi=None,
    loss_distill=[dict(type='RepresentationCompensationLoss', compares='trunk')],
    input_size=None,
    synonyms='max',
)
fixed = dict(type='Resize', scale=side, keep_ratio=False)
pack = dict(type='PackSegInputs')
train_dataloader = dict(dataset=dict(pipeline=[*_base_.loading, fixed, pack]))
test_pipeline = [dict(type='LoadImageFromFile'), fixed, dict(type='LoadAnnotations'), pack]
test_dataloader = dict(dataset=dict(pipeline=test_pipeline))
optim_wrapper = dict(
    optimizer=dict(lr=1e-3),
    clip_grad=dict(max_norm=1.0, scope='group'),
    paramwise_cfg=dict(norm_decay_mult=0.0, custom_keys={'backbone': dict(lr_mult=0.25)}),
)
param_scheduler = [
    dict(type='CosineAnnealingLR', T_max=max_iters, end=max_iters, by_epoch=False),
    dict(type='LinearLR', start_factor=0.1, end=20, by_epoch=False),
]
train_cfg = dict(max_iters=max_iters)
default_hooks = dict(checkpoint=dict(interval=100))
