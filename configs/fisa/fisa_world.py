# FISA (our reading) on the composed world, with the masks of its frozen FC-CLIP (world/fcclip).
# python tools/train.py configs/fisa/fisa_world.py
_base_ = ['./_base_/world.py']
