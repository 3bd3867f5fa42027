# The paper's Table 2 on the composed world, with its learning rates (CLIP 0.01 of the head).
# python tools/ablation.py configs/world/ablation.py --jobs 2
#
# The protocol, fixed before the runs. Every row: the 400 iterations of 8 scenes of _base_, the same
# decoder, seeds and clip (one norm over CLIP and head, LPAM apart), both weights 1. Read are the
# paired differences to CAT-Seg over the seeds; one counts where its mean is more than twice
# its standard error (std / sqrt(5)), and everything is reported.
_folder = 'configs/world'
runs = [
    dict(name='zero-shot', config=f'{_folder}/zero_shot.py', train=False),
    dict(name='CAT-Seg', config=f'{_folder}/catseg.py'),
    dict(name='KL', config=f'{_folder}/kl.py'),
    dict(name='MAFT', config=f'{_folder}/maft.py'),
    dict(name='MAFT+ (RC)', config=f'{_folder}/maft_plus.py'),
    dict(name='cost-volume MI', config=f'{_folder}/cost_volume_mi.py'),
    dict(name='LPAM + KL', config=f'{_folder}/lpam_kl.py'),
    dict(name='L_c only', config=f'{_folder}/infoclip_l_c.py'),
    dict(name='L_d only', config=f'{_folder}/infoclip_l_d.py'),
    dict(name='InfoCLIP', config=f'{_folder}/infoclip.py'),
]
seeds = [0, 1, 2, 3, 4]
_many = {
    'test_dataloader.dataset.vocabulary': 'distractors',
    'test_dataloader.dataset.length': 200,
    'test_evaluator.absent': 'skip',  # words that no scene holds have no IoU of their own
}
_cosine = dict(decode_head=dict(_delete_=True, type='CosineHead'))
_alone = dict(**_cosine, neck=None, loss_ib=None, loss_mi=None)
tests = [
    dict(name='joint'),
    dict(name='distractors', cfg_options=_many),
    dict(name='shifted', cfg_options={'test_dataloader.dataset.domain': 'shifted'}),
    dict(name='tuned CLIP alone', cfg_options=dict(model=_alone)),
]
baseline = 'CAT-Seg'
