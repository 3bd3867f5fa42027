# The small CLIP on the composed world, as it is: cosines of dense embeddings and class names.
# python tools/test.py configs/world/zero_shot.py
_base_ = ['./_base_/segmentation.py']
model = dict(decode_head=dict(_delete_=True, type='CosineHead'))
train_dataloader = None
train_cfg = None
optim_wrapper = None
param_scheduler = None
