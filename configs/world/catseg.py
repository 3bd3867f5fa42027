# CAT-Seg on the composed world: fine-tuning without a teacher.
# python tools/train.py configs/world/catseg.py
_base_ = ['./_base_/segmentation.py']
