# InfoCLIP on the composed world without the compression: only L_d, the transfer loss.
# python tools/train.py configs/world/infoclip_l_d.py
_base_ = ['./infoclip.py']
model = dict(loss_ib=None)
