ade = dict(
    data_prefix=dict(
        img_path='images/validation', seg_map_path='annotations/validation'),
    data_root='tests/data/ade',
    reduce_zero_label=True,
    type='ADE20KDataset')
custom_hooks = [
    dict(type='FrozenTeacherHook'),
    dict(type='VocabularyHook'),
    dict(type='NonFiniteLossHook'),
]
custom_imports = dict(
    allow_failed_imports=False, imports=[
        'infoclip_mmseg',
    ])
default_hooks = dict(
    checkpoint=dict(
        by_epoch=False,
        interval=3,
        max_keep_ckpts=3,
        save_optimizer=False,
        type='CheckpointHook'),
    logger=dict(interval=1, log_metric_by_epoch=False, type='LoggerHook'),
    param_scheduler=dict(type='ParamSchedulerHook'),
    sampler_seed=dict(type='DistSamplerSeedHook'),
    timer=dict(type='IterTimerHook'),
    visualization=dict(draw=True, interval=1, type='SegVisualizationHook'))
default_scope = 'mmseg'
env_cfg = dict(
    cudnn_benchmark=True,
    dist_cfg=dict(backend='nccl'),
    mp_cfg=dict(mp_start_method='fork', opencv_num_threads=0))
find_unused_parameters = True
launcher = 'none'
load_from = '/work/scratch/full/iter_3.pth'
log_level = 'INFO'
log_processor = dict(by_epoch=False)
max_iters = 80000
model = dict(
    backbone=dict(
        dense_mode='catseg',
        finetune='attention',
        model_name='ViT-B-16-quickgelu',
        pretrained=None,
        type='CLIPDualEncoder',
        with_cp=True),
    data_preprocessor=dict(
        bgr_to_rgb=True,
        mean=[
            122.7709383,
            116.7460125,
            104.09373615,
        ],
        pad_val=0,
        seg_pad_val=255,
        size=(
            384,
            384,
        ),
        std=[
            68.5005327,
            66.6321579,
            70.32316305,
        ],
        type='OpenVocabDataPreProcessor'),
    decode_head=dict(
        appearance_proj_dim=128,
        decoder_dims=(
            64,
            32,
        ),
        decoder_guidance_dims=(
            256,
            128,
        ),
        decoder_guidance_proj_dims=(
            32,
            16,
        ),
        hidden_dim=128,
        loss_decode=dict(ignored='negative', type='CATSegBCELoss'),
        num_heads=4,
        num_layers=2,
        pad_len=256,
        pooling_size=2,
        text_proj_dim=128,
        type='CATSegHead',
        window_size=12,
        with_cp=True),
    input_size=384,
    loss_ib=dict(loss_weight=1.0, type='InfoBottleneckLoss'),
    loss_mi=dict(loss_weight=1.0, type='MITransferLoss'),
    neck=dict(type='LPAM'),
    templates=('A photo of a {} in the scene', ),
    test_cfg=dict(
        mode='slide',
        overlap=0.333,
        size=(
            640,
            640,
        ),
        view_batch_size=4,
        window=384),
    type='OpenVocabSegmentor')
optim_wrapper = dict(
    clip_grad=dict(max_norm=0.01, scope='all'),
    constructor='GroupedOptimWrapperConstructor',
    optimizer=dict(lr=0.0002, type='AdamW', weight_decay=0.0001),
    paramwise_cfg=dict(
        custom_keys=dict(backbone=dict(lr_mult=0.01)), norm_decay_mult=0.0),
    type='OptimWrapper')
param_scheduler = [
    dict(
        T_max=80000,
        begin=0,
        by_epoch=False,
        end=80000,
        eta_min=0.0,
        type='CosineAnnealingLR'),
]
randomness = dict(seed=0)
resume = False
test_cfg = dict(type='TestLoop')
test_dataloader = dict(
    batch_size=1,
    dataset=dict(
        data_prefix=dict(
            img_path='images/validation',
            seg_map_path='annotations/validation'),
        data_root='tests/data/ade',
        pipeline=[
            dict(type='LoadImageFromFile'),
            dict(type='CheckInputs'),
            dict(
                backend='pillow',
                keep_ratio=True,
                scale=(
                    2560,
                    640,
                ),
                type='Resize'),
            dict(type='LoadAnnotations'),
            dict(type='CheckInputs'),
            dict(type='PackSegInputs'),
        ],
        reduce_zero_label=True,
        type='ADE20KDataset'),
    num_workers=0,
    persistent_workers=False,
    sampler=dict(shuffle=False, type='DefaultSampler'))
test_evaluator = dict(
    iou_metrics=[
        'mIoU',
    ], type='IoUMetric')
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='CheckInputs'),
    dict(
        backend='pillow', keep_ratio=True, scale=(
            2560,
            640,
        ), type='Resize'),
    dict(type='LoadAnnotations'),
    dict(type='CheckInputs'),
    dict(type='PackSegInputs'),
]
test_resize = dict(
    backend='pillow', keep_ratio=True, scale=(
        2560,
        640,
    ), type='Resize')
train_cfg = dict(max_iters=3, type='IterBasedTrainLoop', val_interval=3)
train_dataloader = dict(
    batch_size=2,
    dataset=dict(
        data_prefix=dict(
            img_path='images/validation',
            seg_map_path='annotations/validation'),
        data_root='tests/data/ade',
        pipeline=[
            dict(type='CheckInputs'),
            dict(type='LoadImageFromFile'),
            dict(type='LoadAnnotations'),
            dict(type='CheckInputs'),
            dict(keep_ratio=True, scale=(
                100000,
                384,
            ), type='Resize'),
            dict(cat_max_ratio=1.0, crop_size=(
                384,
                384,
            ), type='RandomCrop'),
            dict(prob=0.5, type='RandomFlip'),
            dict(type='PhotoMetricDistortion'),
            dict(type='PackSegInputs'),
        ],
        reduce_zero_label=True,
        type='ADE20KDataset'),
    num_workers=0,
    persistent_workers=False,
    sampler=dict(shuffle=True, type='InfiniteSampler'))
train_pipeline = [
    dict(type='CheckInputs'),
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations'),
    dict(type='CheckInputs'),
    dict(keep_ratio=True, scale=(
        100000,
        384,
    ), type='Resize'),
    dict(cat_max_ratio=1.0, crop_size=(
        384,
        384,
    ), type='RandomCrop'),
    dict(prob=0.5, type='RandomFlip'),
    dict(type='PhotoMetricDistortion'),
    dict(type='PackSegInputs'),
]
tta_model = dict(type='SegTTAModel')
tta_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(
        transforms=[
            [
                dict(
                    backend='pillow',
                    keep_ratio=True,
                    scale=(
                        2560,
                        640,
                    ),
                    type='Resize'),
            ],
            [
                dict(prob=0.0, type='RandomFlip'),
                dict(prob=1.0, type='RandomFlip'),
            ],
            [
                dict(type='LoadAnnotations'),
            ],
            [
                dict(type='PackSegInputs'),
            ],
        ],
        type='TestTimeAug'),
]
val_cfg = None
val_dataloader = None
val_evaluator = None
vis_backends = [
    dict(type='LocalVisBackend'),
]
visualizer = dict(
    name='visualizer',
    save_dir='show',
    type='SegLocalVisualizer',
    vis_backends=[
        dict(type='LocalVisBackend'),
    ])
work_dir = '/work/scratch/full_test'
