# The CLIP of the harder world, first stage: as ../pretrain_1_contrast.py, patches of 16 pixels.
# python tools/pretrain_clip.py configs/world/shapes/pretrain_{1_contrast,2_dense}.py
_base_ = ['../pretrain_1_contrast.py', '../_base_/shapes.py']
model = dict(backbone=dict(model_name=dict(vision_cfg=dict(image_size=128, patch_size=16))))
train_dataloader = dict(
    batch_size=24,
    dataset=dict(
        views={'_delete_': True, 32: 6, 64: 6, 128: 1},
        named={'_delete_': True, 32: 1, 64: 1},
        length=24 * 2400,
        **_base_._scenes,
    ),
)
