# ClearCLIP on CLIP ViT-B/16, training-free, as its published code evaluates: shortest side 448,
# windows of 448 with stride 224, 80 templates, softmax of 50 times the cosine.
#
# Another CLIP:    --cfg-options model.backbone.model_name=ViT-L-14-quickgelu
# OpenCLIP:        --cfg-options model.backbone.model_name=ViT-B-16 \
#                      model.backbone.pretrained=laion2b_s34b_b88k
# Another reading: --cfg-options model.backbone.dense_mode=sclip_residual
_base_ = ['../../_base_/default_runtime.py', '../../_base_/clip_preprocessor.py']
model = dict(
    type='OpenVocabSegmentor',
    data_preprocessor=dict(test_cfg=dict(size_divisor=1)),
    backbone=dict(
        type='CLIPDualEncoder',
        model_name='ViT-B-16-quickgelu',
        pretrained='openai',
        finetune='frozen',
        dense_mode='clearclip',
    ),
    decode_head=dict(type='ZeroShotHead', scale=50.0, threshold=0.0, background=0),
    input_size=None,
    templates='imagenet',
    synonyms='max',
    test_cfg=dict(mode='windows', window=448, stride=224),
)
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='CheckInputs'),
    # Shortest side 448, longest at most 2048. The label map stays as it is.
    dict(type='Resize', scale=(2048, 448), keep_ratio=True),
    dict(type='LoadLabelMap'),
    dict(type='CheckInputs'),
    dict(type='PackSegInputs'),
]
test_dataloader = dict(
    batch_size=1,
    num_workers=4,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=False),
)
test_evaluator = dict(type='OpenVocabIoUMetric', iou_metrics=['mIoU'])
train_cfg = None
test_cfg = dict(type='TestLoop')
default_hooks = dict(visualization=dict(type='SegVisualizationHook'))
