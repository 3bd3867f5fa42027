# Figure 5 of the paper on the composed world: weights of L_c and L_d where fine-tuning forgets.
# python tools/ablation.py configs/world/ablation_lambda.py --jobs 2
_base_ = ['./ablation_forgetting.py']
_options = _base_.runs[-1].cfg_options
_weights = [0.1, 1.0, 10.0]
runs = [_base_.runs[1]] + [
    dict(
        name=f'L_c {c} L_d {d}',
        config='configs/world/infoclip.py',
        cfg_options={**_options, 'model.loss_ib.loss_weight': c, 'model.loss_mi.loss_weight': d},
    )
    for c in _weights
    for d in _weights
]
seeds = [0, 1, 2]
tests = [_base_.tests[0], _base_.tests[3]]
