# MAFT+ on CLIP ConvNeXt-B.
_base_ = ['./maftp_convnext-l.py']
model = dict(
    backbone=dict(
        model_name='convnext_base_w_320',
        pretrained='laion_aesthetic_s13b_b82k_augreg',
    )
)
