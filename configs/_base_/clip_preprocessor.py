# How CLIP takes its images. Mean and standard deviation are those that open_clip has for the tag of
# the weights; for a file OpenAI's, unless `mean` and `std` (RGB, 0..255) are given here.
model = dict(
    data_preprocessor=dict(
        type='OpenVocabDataPreProcessor',
        bgr_to_rgb=True,
        pad_val=0,
        seg_pad_val=255,
    )
)
