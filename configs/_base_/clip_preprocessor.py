# How CLIP takes its images: normalised by the mean and standard deviation that open_clip has for the
# weights' tag; for a file by OpenAI's, unless `mean` and `std` (RGB, 0..255) are given here.
model = dict(
    data_preprocessor=dict(
        type='OpenVocabDataPreProcessor',
        bgr_to_rgb=True,
        pad_val=0,
        seg_pad_val=255,
    )
)
