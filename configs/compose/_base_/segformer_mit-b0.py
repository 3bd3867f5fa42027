# SegFormer with MiT-B0, as mmseg's segformer_mit-b0 for ADE20K.
model = dict(
    type='EncoderDecoder',
    data_preprocessor=dict(
        type='SegDataPreProcessor',
        mean=[123.675, 116.28, 103.53],
        std=[58.395, 57.12, 57.375],
        bgr_to_rgb=True,
        pad_val=0,
        seg_pad_val=255,
        size=(512, 512),
    ),
    backbone=dict(
        type='MixVisionTransformer',
        embed_dims=32,
        num_layers=[2, 2, 2, 2],
        num_heads=[1, 2, 5, 8],
        drop_path_rate=0.1,
        # ImageNet weights: init_cfg=dict(type='Pretrained', checkpoint=FILE)
    ),
    decode_head=dict(
        type='SegformerHead',
        in_channels=[32, 64, 160, 256],
        in_index=[0, 1, 2, 3],
        channels=256,
        num_classes=150,
        norm_cfg=dict(type='SyncBN', requires_grad=True),
    ),
    train_cfg=dict(),
    test_cfg=dict(mode='whole'),
)
