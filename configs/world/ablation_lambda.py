# Figure 5 of the paper on the composed world: weights of L_c and L_d where fine-tuning forgets.
# python tools/ablation.py configs/world/ablation_lambda.py --jobs 2
_base_ = ['./ablation_forgetting.py']
_ours = _base_.runs[-1]
_pairs = [(c, d) for c in (0.01, 0.1, 1.0) for d in (0.01, 0.1, 1.0)]
_keys = ('model.loss_ib.loss_weight', 'model.loss_mi.loss_weight')
runs = [_base_.runs[1]] + [
    dict(
        _ours,
        name=f'L_c {pair[0]}, L_d {pair[1]}',
        cfg_options={**_ours.cfg_options, **dict(zip(_keys, pair))},
    )
    for pair in _pairs
]
seeds = [0, 1]
tests = [_base_.tests[0], _base_.tests[3]]
