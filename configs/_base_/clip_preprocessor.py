# How CLIP takes its images.
model = dict(
    data_preprocessor=dict(
        type='OpenVocabDataPreProcessor',
        # CLIP's mean and standard deviation, RGB, in 0..255
        mean=[122.7709383, 116.7460125, 104.09373615],
        std=[68.5005327, 66.6321579, 70.32316305],
        bgr_to_rgb=True,
        pad_val=0,
        seg_pad_val=255,
    )
)
