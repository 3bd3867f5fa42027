# What the Gram matrices compare, where fine-tuning forgets: images of a batch of 8 or of 16, or the
# positions of each image.
# python tools/ablation.py configs/world/ablation_gram.py --jobs 2
_base_ = ['./ablation_forgetting.py']
_plain, _ours = _base_.runs[1], _base_.runs[-1]
_token = {'model.loss_ib.samples': 'token', 'model.loss_mi.samples': 'token'}
_large = {'train_dataloader.batch_size': 16}
runs = [
    _plain,
    dict(_ours, name='InfoCLIP, positions', cfg_options={**_ours.cfg_options, **_token}),
    dict(_plain, name='CAT-Seg, batch 16', cfg_options={**_plain.cfg_options, **_large}),
    dict(_ours, name='InfoCLIP, batch 16', cfg_options={**_ours.cfg_options, **_large}),
]
seeds = [0, 1]
tests = [_base_.tests[0], _base_.tests[3]]
