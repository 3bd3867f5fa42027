# Which part of FISA (our reading) gains what on the composed world, and what oracles would gain.
# python tools/ablation.py configs/fisa/ablation_world.py --jobs 2
#
# The generator is trained first: python tools/train.py configs/world/fcclip.py. Read are the paired
# differences to MasQCLIP over the seeds; one counts where its mean is more than twice its standard
# error, and everything is reported.
_config = 'configs/fisa/fisa_world.py'
_pooled = {'model.decode_head.ensemble': dict(alpha=1.0, beta=1.0, seen=[])}
_frozen = {'model.backbone.finetune': 'frozen'}
_wordless = {'model.backbone.word_blocks': 0.0}
_fiser = {'model.loss_aux': [dict(type='FiSeRLoss', loss_weight=0.1)]}


def _row(name, *options, **kwargs):
    joint = {key: value for option in options for key, value in option.items()}
    return dict(name=name, config=_config, cfg_options=joint, **kwargs)


runs = [
    _row('frozen mask pooling', _frozen, _wordless, _pooled, train=False),
    _row('frozen mask tokens', _frozen, _wordless, train=False),
    _row('MasQCLIP (SIMO only)', _wordless),
    _row('SEVE only', _frozen),
    _row('FISA', {}),
    _row('FISA + FiSeR', _fiser),
]
seeds = [0, 1, 2, 3, 4]
figures = ['seen_mIoU', 'unseen_mIoU', 'harmonic', 'PQ']
tests = [
    dict(name='joint'),
    dict(name='true masks', cfg_options={'model.test_cfg.oracle': 'masks'}),
    dict(name='true classes', cfg_options={'model.test_cfg.oracle': 'classes'}),
]
baseline = 'MasQCLIP (SIMO only)'
