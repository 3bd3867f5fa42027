# A harder world: classes also have a shape, scenes of 128 x 128 pixels. CLIP at three times the
# head's rate; 12 of 48 compositions are seen.
# python tools/ablation.py configs/world/study/shapes.py --jobs 2
_base_ = ['./rows.py', '../_base_/shapes.py']
_rows = ('zero-shot', 'CAT-Seg', 'KL', 'MAFT+ (RC)', 'InfoCLIP', 'CS positions', 'CS map')
_size = _base_._scenes['size']
_model = {
    'model.backbone.model_name.vision_cfg': dict(
        image_size=128, layers=4, width=128, head_width=32, patch_size=16
    ),
    'model.backbone.pretrained': 'data/clip/composed_world_shapes.safetensors',
    'model.input_size': 128,
    'model.data_preprocessor.size': _size,
}
_test = {**_model, **{f'test_dataloader.dataset.{k}': v for k, v in _base_._scenes.items()}}
_train = {**_test, **{f'train_dataloader.dataset.{k}': v for k, v in _base_._scenes.items()}}
_fast = {'optim_wrapper.paramwise_cfg.custom_keys.backbone.lr_mult': 3.0}
runs = [
    {**run, 'cfg_options': {**_fast, **_train, **run.get('cfg_options', {})}}
    if run.get('train', True)
    else {**run, 'cfg_options': _test}
    for run in _base_.runs
    if run.name in _rows
]
