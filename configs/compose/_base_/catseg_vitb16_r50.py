# CAT-Seg on CLIP ViT-B/16, guided by the first three stages (strides 4, 8 and 16) of a backbone
# beside it.
_base_ = ['../../_base_/models/catseg_vitb16.py']
model = dict(
    guidance=dict(
        type='AppearanceGuidance',
        backbone=dict(
            type='ResNet',
            depth=50,
            num_stages=3,
            strides=(1, 2, 2),
            dilations=(1, 1, 1),
            out_indices=(0, 1, 2),
            norm_cfg=dict(type='BN', requires_grad=True),
            norm_eval=True,
            init_cfg=dict(type='Pretrained', checkpoint='torchvision://resnet50'),
        ),
    ),
    decode_head=dict(guidance_channels=(1024, 512, 256)),
)
