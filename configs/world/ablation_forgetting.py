# InfoCLIP's rows where plain fine-tuning forgets: 6 seen compositions instead of 12, and CLIP
# learns at three times the rate of the head. Everything else, and how it is read, as in
# ablation.py.
# python tools/ablation.py configs/world/ablation_forgetting.py --jobs 2
_base_ = ['./ablation.py']
_few = {'train_dataloader.dataset.spec': dict(num_seen=6)}
_test = {'test_dataloader.dataset.spec': dict(num_seen=6)}
_fast = {'optim_wrapper.paramwise_cfg.custom_keys.backbone.lr_mult': 3.0}
_train = {**_few, **_test, **_fast}
_rows = ('zero-shot', 'CAT-Seg', 'L_c only', 'L_d only', 'InfoCLIP')
runs = [
    dict(**run, cfg_options=_train if run.get('train', True) else _test)
    for run in _base_.runs
    if run.name in _rows
]
