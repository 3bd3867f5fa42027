# The small ConvNeXt CLIP of the composed world: stages at strides 1, 2, 4 and 8.
_base_ = ['../../_base_/clip_preprocessor.py']
clip = dict(
    embed_dim=128,
    vision_cfg=dict(
        timm_model_name='convnext_atto',
        timm_pool='',
        timm_proj='linear',
        image_size=64,
        convnext=dict(depths=(1, 1, 2, 1), dims=(24, 48, 96, 192), stem_stride=1),
    ),
    text_cfg=dict(context_length=77, vocab_size=49408, width=128, heads=4, layers=2),
)
clip_mean = [122.7709383, 116.7460125, 104.09373615]
clip_std = [68.5005327, 66.6321579, 70.32316305]
