# InfoCLIP's losses on MAFT+, in place of Representation Compensation, on the composed world.
# python tools/train.py configs/world/infoclip_maftp.py
_base_ = ['./maftp.py']
model = dict(
    neck=dict(type='LPAM'),
    loss_ib=dict(type='InfoBottleneckLoss', loss_weight=1.0),
    loss_mi=dict(type='MITransferLoss', loss_weight=1.0),
    loss_distill=None,
)
