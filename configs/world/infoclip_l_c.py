# InfoCLIP on the composed world without the transfer: only L_c, the compression loss.
# python tools/train.py configs/world/infoclip_l_c.py
_base_ = ['./infoclip.py']
model = dict(loss_mi=None)
