# Pretraining of the small ConvNeXt CLIP, first stage: as pretrain_1_contrast.py.
# python tools/pretrain_clip.py configs/world/pretrain_convnext_{1_contrast,2_dense}.py
_base_ = ['./pretrain_1_contrast.py']
vision_cfg = dict(
    timm_model_name='convnext_atto',
    timm_pool='',
    timm_proj='linear',
    image_size=64,
    convnext=dict(depths=(1, 1, 2, 1), dims=(24, 48, 96, 192), stem_stride=1),
)
text_cfg = dict(context_length=77, vocab_size=49408, width=128, heads=4, layers=2)
clip = dict(_delete_=True, embed_dim=128, vision_cfg=vision_cfg, text_cfg=text_cfg)
model = dict(backbone=dict(model_name=clip))
