# Mask classification on the composed world: what MAFT+ adds to FC-CLIP, part by part, and
# InfoCLIP's losses in place of Representation Compensation.
# python tools/ablation.py configs/world/ablation_masks.py --jobs 2
#
# The protocol, fixed before the runs. Every row: the 600 iterations of 8 scenes of _base_/masks.py,
# the same decoder, seeds and clips. Read are seen and unseen mIoU, their harmonic mean and PQ, and
# the paired differences to FC-CLIP over the seeds; one counts where its mean is more than twice its
# standard error (std / sqrt(5)), and everything is reported. With true masks only the naming of
# masks is left: the row without training is CLIP's mask pooling itself.
_folder = 'configs/world'
_pooled = {'model.decode_head.ensemble': dict(alpha=1.0, beta=1.0, seen=[])}
_positions = {'model.decode_head.transfer.tokens': 'positions'}
runs = [
    dict(name='zero-shot', config=f'{_folder}/fcclip.py', cfg_options=_pooled, train=False),
    dict(name='FC-CLIP', config=f'{_folder}/fcclip.py'),
    dict(name='MAFT+', config=f'{_folder}/maftp.py'),
    dict(name='MAFT+, tokens at positions', config=f'{_folder}/maftp.py', cfg_options=_positions),
    dict(name='MAFT+ without RC', config=f'{_folder}/maftp_no_rc.py'),
    dict(name='MAFT+ without CDT', config=f'{_folder}/maftp_no_cdt.py'),
    dict(name="MAFT+ with InfoCLIP's losses", config=f'{_folder}/infoclip_maftp.py'),
]
seeds = [0, 1, 2, 3, 4]
figures = ['seen_mIoU', 'unseen_mIoU', 'harmonic', 'PQ']
tests = [
    dict(name='joint'),  # of the row without training: masks of random weights
    dict(name='true masks', cfg_options={'model.test_cfg.oracle': 'masks'}),
]
baseline = 'FC-CLIP'
