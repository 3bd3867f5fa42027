# MAFT+ on the composed world, without Content-Dependent Transfer.
# python tools/train.py configs/world/maftp_no_cdt.py
_base_ = ['./maftp.py']
model = dict(decode_head=dict(transfer=None))
