# Where plain fine-tuning forgets: CLIP at three times the head's rate, 6 seen compositions.
# python tools/ablation.py configs/world/study/forgetting.py --jobs 2
_base_ = ['./rows.py']
_test = {'test_dataloader.dataset.spec': dict(num_seen=6)}
_train = {'train_dataloader.dataset.spec': dict(num_seen=6), **_test}
_fast = {'optim_wrapper.paramwise_cfg.custom_keys.backbone.lr_mult': 3.0}
runs = [
    {**run, 'cfg_options': {**_fast, **_train, **run.get('cfg_options', {})}}
    if run.get('train', True)
    else {**run, 'cfg_options': _test}
    for run in _base_.runs
]
