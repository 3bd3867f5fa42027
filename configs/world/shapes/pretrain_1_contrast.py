# The harder world: classes also have a shape, scenes of 128 x 128 pixels. First stage of its CLIP.
# python tools/pretrain_clip.py configs/world/shapes/pretrain_{1_contrast,2_dense}.py
_base_ = ['../pretrain_1_contrast.py']
model = dict(
    backbone=dict(model_name=dict(vision_cfg=dict(image_size=128, patch_size=16))),
)
train_dataloader = dict(
    batch_size=24,
    dataset=dict(
        views={'_delete_': True, 32: 6, 64: 6, 128: 1},
        named={'_delete_': True, 32: 1, 64: 1},
        size=(128, 128),
        domain='large',
        spec=dict(
            colours=('red', 'yellow', 'green', 'blue'),
            textures=('plain', 'striped', 'dotted'),
            shapes=('disc', 'cross', 'triangle', 'ring'),
        ),
        length=24 * 2400,
    ),
)
