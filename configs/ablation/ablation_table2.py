# The rows of the paper's Table 2 on losses, trained on COCO-Stuff, evaluated on every benchmark.
# python tools/ablation.py configs/ablation/ablation_table2.py --gpus 4
_ours = 'configs/infoclip_vitb16_coco-stuff.py'
_rivals = 'configs/distillation/{}_vitb16_coco-stuff.py'
_batch = {'train_dataloader.batch_size': 1}  # 4 GPUs x 1 image; the Gram matrices see all 4
runs = [
    dict(name='CAT-Seg', config='configs/catseg_vitb16_coco-stuff.py', cfg_options=_batch),
    dict(name='KL', config=_rivals.format('kl'), cfg_options=_batch),
    dict(name='MAFT', config=_rivals.format('maft'), cfg_options=_batch),
    dict(name='MAFT+ (RC)', config=_rivals.format('maft-plus'), cfg_options=_batch),
    dict(name='cost-volume MI', config=_rivals.format('cost-volume-mi'), cfg_options=_batch),
    dict(name='LPAM + KL', config=_rivals.format('lpam-kl'), cfg_options=_batch),
    dict(name='L_c only', config=_ours, cfg_options={**_batch, 'model.loss_mi': None}),
    dict(name='L_d only', config=_ours, cfg_options={**_batch, 'model.loss_ib': None}),
    dict(name='InfoCLIP', config=_ours, cfg_options=_batch),
]
seeds = [0, 1, 2]
_sets = ('ade847', 'pc459', 'ade20k', 'pc59', 'voc20', 'voc20b')
tests = [dict(name=name, config=f'configs/infoclip_vitb16_{name}.py') for name in _sets]
figures = ['mIoU', 'mIoU_present']
baseline = 'CAT-Seg'
