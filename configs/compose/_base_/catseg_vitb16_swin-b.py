# CAT-Seg on CLIP ViT-B/16, guided by the first three stages (strides 4, 8 and 16) of a backbone
# beside it.
_base_ = ['../../_base_/models/catseg_vitb16.py']
model = dict(
    guidance=dict(
        type='AppearanceGuidance',
        backbone=dict(
            type='SwinTransformer',
            pretrain_img_size=384,
            embed_dims=128,
            depths=(2, 2, 18),
            num_heads=(4, 8, 16),
            window_size=12,
            out_indices=(0, 1, 2),
            # ImageNet weights: init_cfg=dict(type='Pretrained', checkpoint=FILE)
        ),
    ),
    decode_head=dict(guidance_channels=(512, 256, 128)),
)
