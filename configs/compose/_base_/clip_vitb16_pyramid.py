# The four maps of CLIP as a pyramid at strides 4, 8, 16 and 32, by mmseg's own neck.
_base_ = ['./clip_vitb16.py']
model = dict(
    neck=dict(
        type='MultiLevelNeck',
        in_channels=[768, 768, 768, 512],
        out_channels=512,
        scales=[4, 2, 1, 0.5],
    )
)
