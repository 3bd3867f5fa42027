# The small CLIP of the composed world: 1.3 M parameters beside the token table.
_base_ = ['../../_base_/clip_preprocessor.py']
clip = dict(
    embed_dim=128,
    quick_gelu=True,
    vision_cfg=dict(image_size=64, layers=4, width=128, head_width=32, patch_size=8),
    text_cfg=dict(context_length=77, vocab_size=49408, width=128, heads=4, layers=2),
)
clip_mean = _base_.model.data_preprocessor.mean
clip_std = _base_.model.data_preprocessor.std
