# Mask tokens on the composed world. Rows of ablation_world.py differ in options of this.
_base_ = ['../../world/_base_/segmentation.py']
_load = [dict(type='LoadImageFromFile'), dict(type='LoadPanoptic')]  # drawn, not read
_pack = dict(type='PackPanopticInputs')
model = dict(
    backbone=dict(type='MaskTokenEncoder', finetune='mask_q'),
    decode_head=dict(_delete_=True, type='MaskTokenHead'),
    mask_generator=dict(
        type='FrozenMaskGenerator',
        config='configs/world/fcclip.py',
        checkpoint='work_dirs/fcclip/iter_600.pth',
    ),
    test_cfg=dict(panoptic=True),
)
train_dataloader = dict(dataset=dict(pipeline=[*_load, dict(type='RandomFlip', prob=0.5), _pack]))
test_dataloader = dict(dataset=dict(pipeline=[*_load, _pack]))
test_evaluator = [dict(type='SeenUnseenIoUMetric'), dict(type='PanopticMetric')]
optim_wrapper = dict(
    paramwise_cfg=dict(
        _delete_=True, norm_decay_mult=0.0, custom_keys={'gate': dict(decay_mult=0.0)}
    ),
    clip_grad=dict(_delete_=True, max_norm=1.0, scope='group'),
)
