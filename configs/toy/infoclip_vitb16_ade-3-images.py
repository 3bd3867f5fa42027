# Full-size InfoCLIP with random weights, 3 iterations on the three ADE20K images under tests/data.
# python tools/train.py configs/toy/infoclip_vitb16_ade-3-images.py
_base_ = ['../infoclip_vitb16_ade20k.py']
ade = dict(
    type='ADE20KDataset',
    data_root='tests/data/ade',
    data_prefix=dict(img_path='images/validation', seg_map_path='annotations/validation'),
    reduce_zero_label=True,
)
model = dict(backbone=dict(pretrained=None, with_cp=True), decode_head=dict(with_cp=True))
train_dataloader = dict(
    batch_size=2,
    num_workers=0,
    persistent_workers=False,
    dataset=dict(_delete_=True, pipeline=_base_.train_pipeline, **ade),
)
val_dataloader = None
val_cfg = None
val_evaluator = None
test_dataloader = dict(
    num_workers=0,
    persistent_workers=False,
    dataset=dict(_delete_=True, pipeline=_base_.test_pipeline, **ade),
)
train_cfg = dict(type='IterBasedTrainLoop', max_iters=3, val_interval=3)
default_hooks = dict(logger=dict(interval=1), checkpoint=dict(interval=3, save_optimizer=False))
