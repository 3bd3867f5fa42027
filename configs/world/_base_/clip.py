# The small CLIP of the composed world: 1.3 M parameters beside the token table.
_base_ = ['../../_base_/clip_preprocessor.py']
clip = dict(
    embed_dim=128,
    quick_gelu=True,
    vision_cfg=dict(image_size=64, layers=4, width=128, head_width=32, patch_size=8),
    text_cfg=dict(context_length=77, vocab_size=49408, width=128, heads=4, layers=2),
)
clip_mean = [122.7709383, 116.7460125, 104.09373615]
clip_std = [68.5005327, 66.6321579, 70.32316305]
