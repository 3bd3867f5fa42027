# Quality against the number K of decoded classes, trained with and without selection.
# python tools/ablation.py configs/world/ablation_compact.py --jobs 2
#
# The protocol, fixed before the runs. Everything else as in ablation.py, so CAT-Seg is its row; 18
# classes in training, 30 in the joint and the shifted test, 180 with distractors. Every row is
# tested at every K. Read are, by test, the paired differences over five seeds to CAT-Seg at K = T:
# the least K that costs less than 0.1 point in the harmonic mean, and whether training with K = 8
# costs more than it; one counts as in ablation.py. Everything is reported.
_base_ = ['./ablation.py']
_plain = _base_.runs[1]
_rows = {'K 4': (4, 'negative'), 'K 8': (8, 'negative'), 'K 8, left out': (8, 'exclude')}
_keys = ('model.decode_head.num_decoded_train', 'model.decode_head.undecoded')
runs = [_plain]
runs += [dict(_plain, name=n, cfg_options=dict(zip(_keys, v))) for n, v in _rows.items()]
_decoded = {'joint': (4, 8, 16, 24), 'distractors': (4, 8, 16, 32, 64), 'shifted': (4, 8, 16, 24)}
_key = 'model.decode_head.num_decoded'
tests = [*_base_.tests]
tests += [
    dict(name=f'{test.name}, K {k}', cfg_options={**test.get('cfg_options', {}), _key: k})
    for test in _base_.tests
    for k in _decoded.get(test.name, ())
]
