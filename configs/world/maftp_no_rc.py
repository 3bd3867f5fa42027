# MAFT+ on the composed world, without Representation Compensation.
# python tools/train.py configs/world/maftp_no_rc.py
_base_ = ['./_base_/masks.py']
model = dict(loss_distill=None)
