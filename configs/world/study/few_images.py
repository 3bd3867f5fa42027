# Few images: 100 scenes that hold 4 compositions, at the paper's ratio, which is users' default.
# python tools/ablation.py configs/world/study/few_images.py --jobs 2
# With 20 scenes (or 500): --work-dir work_dirs/few_images_20
# --cfg-options train_dataloader.dataset.length=20 --runs zero-shot CAT-Seg 'CS positions'
# 'frozen CLIP' 'CAT-Seg, 100 iterations' 'CS positions, 100 iterations'
_base_ = ['./rows.py']
_test = {'test_dataloader.dataset.spec': dict(num_seen=4)}
_train = {'train_dataloader.dataset.spec': dict(num_seen=4), **_test}
_few = {**_train, 'train_dataloader.dataset.length': 100}
_rows = (
    *('zero-shot', 'CAT-Seg', 'KL', 'MAFT', 'InfoCLIP', 'CS positions', 'CS map'),
    *('CS positions, 30 words', 'EMA', 'L2 to the start, 10', 'frozen text tower', 'frozen CLIP'),
)
_schedule = [dict(type='CosineAnnealingLR', T_max=100, end=100, by_epoch=False)]
_short = {'train_cfg.max_iters': 100, 'param_scheduler': _schedule}
runs = [
    {**run, 'cfg_options': {**run.get('cfg_options', {}), **_few}}
    if run.get('train', True)
    else {**run, 'cfg_options': _test}
    for run in _base_.runs
    if run.name in _rows
]
runs += [
    {
        **run,
        'name': f'{run["name"]}, 100 iterations',
        'cfg_options': {**run['cfg_options'], **_short},
    }
    for run in runs
    if run['name'] in ('CAT-Seg', 'CS positions', 'frozen CLIP')
]
