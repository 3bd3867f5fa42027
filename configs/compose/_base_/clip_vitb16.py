# CLIP ViT-B/16 as the backbone of mmseg's plain EncoderDecoder: four maps at stride 16, those of
# blocks 3, 6 and 9 (768 channels each) and CLIP's dense embeddings (512 channels).
_base_ = ['../../_base_/clip_preprocessor.py']
model = dict(
    type='EncoderDecoder',
    data_preprocessor=dict(
        type='SegDataPreProcessor',
        # OpenAI's; an EncoderDecoder does not take them from the tag of its backbone's weights
        mean=[122.7709383, 116.7460125, 104.09373615],
        std=[68.5005327, 66.6321579, 70.32316305],
        size=(512, 512),
        test_cfg=dict(size_divisor=16),  # whole images must be a multiple of the patch
    ),
    backbone=dict(
        type='CLIPDualEncoder',
        model_name='ViT-B-16-quickgelu',
        pretrained='openai',
        finetune='attention',  # or 'full', 'frozen'; the text tower is not used
        out_blocks=(2, 5, 8),
    ),
    train_cfg=dict(),
    test_cfg=dict(mode='whole'),
)
