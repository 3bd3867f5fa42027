# What holds a fine-tuned CLIP: all rows of the study, at the paper's learning rates.
# The protocol, fixed before the runs, is in README.md beside this file; the regimes are the other
# files, each of which is run by: python tools/ablation.py configs/world/study/REGIME.py --jobs 2
_hooks = [dict(type='VocabularyHook'), dict(type='NonFiniteLossHook')]
_teacher = [*_hooks, dict(type='FrozenTeacherHook')]
_rate = 'optim_wrapper.paramwise_cfg.custom_keys.backbone.lr_mult'
_scope = 'optim_wrapper.clip_grad.scope'
_apart = [['clip'], ['head'], ['lpam']]
_both = ('model.loss_ib.loss_weight', 'model.loss_mi.loss_weight')


def _plain(name, **options):
    return dict(name=name, config='configs/world/catseg.py', cfg_options=options)


def _paper(name, config='infoclip', **options):
    return dict(name=name, config=f'configs/world/{config}.py', cfg_options=options)


def _cs(name, words=None, neck=None, l_c=False, **loss):
    options = {'model.loss_distill': [dict(type='CauchySchwarzLoss', **loss)]}
    if words is not None:
        options['model.guard_words'] = f'configs/world/words/{words}.txt'
    if neck is not None:
        options['model.neck'] = dict(type='LPAM', **neck)
    if l_c:
        options['model.loss_ib'] = dict(type='InfoBottleneckLoss', loss_weight=1.0)
    return dict(name=name, config='configs/world/infoclip_cs.py', cfg_options=options)


runs = [
    dict(name='zero-shot', config='configs/world/zero_shot.py', train=False),
    _plain('CAT-Seg'),
    # Other teachers, as in ablation.py.
    _paper('KL', 'kl'),
    _paper('MAFT', 'maft'),
    _paper('MAFT+ (RC)', 'maft_plus'),
    # The paper's losses, weights 0.1, 1 and 10.
    _paper('L_c only', 'infoclip_l_c'),
    _paper('L_d only', 'infoclip_l_d'),
    _paper('InfoCLIP'),
    _paper('InfoCLIP, 0.1', **dict.fromkeys(_both, 0.1)),
    _paper('InfoCLIP, 10', **dict.fromkeys(_both, 10.0)),
    # The divergence on plain cosines of the training classes.
    _cs('CS positions, 0.1', loss_weight=0.1),
    _cs('CS positions'),
    _cs('CS positions, 10', loss_weight=10.0),
    _cs('CS images', samples='batch'),
    _cs('CS map, 0.1', samples='map', loss_weight=0.1),
    _cs('CS map', samples='map'),
    _cs('CS map, 10', samples='map', loss_weight=10.0),
    # On LPAM's maps: as published it learns from the transfer; from L_c only; not at all.
    _cs('CS positions, shared LPAM', neck={}, maps='shared', detach_teacher=False),
    _cs('CS positions, shared LPAM, L_c', neck={}, l_c=True, maps='shared', detach_teacher=False),
    _cs('CS positions, LPAM of L_c', neck={}, l_c=True, maps='detached'),
    _cs('CS positions, frozen LPAM', neck=dict(frozen=True), maps='detached'),
    # Guard words in place of the training classes (those of them that are no training class).
    _cs('CS positions, 30 words', words='all_30'),
    _cs('CS map, 30 words', words='all_30', samples='map'),
    _cs('CS positions, 150 words', words='other_150'),
    _cs('CS map, 150 words, 10', words='other_150', samples='map', loss_weight=10.0),
    # Without a teacher: averaging, a pull to the start, less that trains, lower rates.
    _plain('EMA', custom_hooks=[*_hooks, dict(type='EMAHook', momentum=0.02)]),
    _plain('L2 to the start, 1', custom_hooks=[*_hooks, dict(type='DecayToStartHook', weight=1.0)]),
    _plain('L2 to the start, 10', custom_hooks=[*_hooks, dict(type='DecayToStartHook', weight=10)]),
    _plain('frozen text tower', **{'model.backbone.finetune': 'image_attention'}),
    _plain('frozen CLIP', **{'model.backbone.finetune': 'frozen'}),
    _plain('CLIP at 0.01', **{_rate: 0.01}),
    _plain('CLIP at 0.3', **{_rate: 0.3}),
    # One clip over everything, as the paper, beside clips apart: the same step for CLIP.
    _plain('CAT-Seg, clips apart', **{_scope: _apart}),
    _paper('InfoCLIP, clips apart', **{_scope: _apart}),
    _paper('InfoCLIP, one clip', **{_scope: 'all'}),
]
seeds = [0, 1, 2, 3, 4]
_cosine = dict(decode_head=dict(_delete_=True, type='CosineHead'))
_alone = dict(**_cosine, neck=None, loss_ib=None, loss_mi=None)
tests = [
    dict(name='joint'),
    dict(name='tuned CLIP alone', cfg_options=dict(model=_alone)),
]
baseline = 'CAT-Seg'
