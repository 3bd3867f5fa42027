# Mask classification on the composed world: a small ConvNeXt CLIP and Mask2Former. They learn from
# panoptic ground truth: each object a thing, each ground stuff.
_base_ = ['./segmentation.py', './convnext_clip.py']
max_iters = 600
model = dict(
    data_preprocessor=dict(test_cfg=dict(size_divisor=8)),
    backbone=dict(
        model_name=_base_.convnext,
        pretrained='data/clip/composed_world_convnext.safetensors',
        finetune='trunk',
    ),
    decode_head=dict(
        _delete_=True,
        type='MaskClassificationHead',
        proposals=dict(
            type='Mask2FormerProposals',
            num_queries=20,
            hidden_dim=64,
            num_heads=4,
            encoder_layers=1,
            encoder_ffn=128,
            decoder_layers=3,
            decoder_ffn=128,
        ),
        transfer=dict(type='ContentDependentTransfer', num_heads=4, form='panoptic'),
        loss_masks=dict(type='Mask2FormerCriterion', num_points=1024),
        loss_mask_aware=dict(type='MaskAwareLoss'),
    ),
    loss_distill=[
        dict(type='RepresentationCompensationLoss', compares='trunk', loss_weight=0.1),
    ],
    input_size=None,
    test_cfg=dict(panoptic=True),
)
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadPanoptic'),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PackPanopticInputs'),
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadPanoptic'),
    dict(type='PackPanopticInputs'),
]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
test_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_evaluator = [dict(type='SeenUnseenIoUMetric'), dict(type='PanopticMetric')]
optim_wrapper = dict(
    _delete_=True,
    type='OptimWrapper',
    constructor='GroupedOptimWrapperConstructor',
    optimizer=dict(type='AdamW', lr=1e-3, weight_decay=1e-4),
    paramwise_cfg=dict(norm_decay_mult=0.0, custom_keys={'backbone': dict(lr_mult=0.01)}),
    clip_grad=dict(max_norm=1.0, scope='group'),
)
param_scheduler = [dict(type='CosineAnnealingLR', T_max=max_iters, end=max_iters, by_epoch=False)]
train_cfg = dict(max_iters=max_iters)
