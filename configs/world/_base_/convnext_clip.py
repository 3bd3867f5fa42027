# The small ConvNeXt CLIP of the composed world: stem of stride 1, stage maps at strides 1 to 8.
convnext = dict(
    _delete_=True,
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
