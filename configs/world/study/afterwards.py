# Guards that need no training: CLIP part of the way back to its pretrained weights (WiSE-FT), and
# the untouched CLIP asked beside the tuned model.
# After forgetting.py, whose trainings it evaluates:
# python tools/ablation.py configs/world/study/afterwards.py --jobs 2
_base_ = ['./forgetting.py']
_hooks = [dict(type='VocabularyHook')]
runs = [run for run in _base_.runs if run.name in ('CAT-Seg', 'CS positions')]
tests = [
    dict(
        name=f'CLIP at {factor}',
        cfg_options=dict(custom_hooks=[*_hooks, dict(type='InterpolationHook', factor=factor)]),
    )
    for factor in (0.0, 0.25, 0.5, 0.75, 1.0)
]
tests += [
    dict(
        name=f'ensemble, untouched {weight}',
        cfg_options={'model.type': 'EnsembleSegmentor', 'model.untouched_weight': weight},
    )
    for weight in (0.25, 0.5, 0.75)
]
work_dir = 'work_dirs/forgetting'
