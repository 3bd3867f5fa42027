# FISA (our reading) on CLIP ViT-L/14 at 336 pixels, with the masks of a frozen FC-CLIP.
_base_ = ['../../_base_/clip_preprocessor.py']
model = dict(
    type='OpenVocabSegmentor',
    data_preprocessor=dict(size_divisor=32),
    backbone=dict(
        type='MaskTokenEncoder',
        model_name='ViT-L-14-336-quickgelu',
        pretrained='openai',
        finetune='mask_q',  # the mask tokens' own query projections, and
        word_blocks=0.25,  # what the first quarter of the blocks reads of the words
    ),
    decode_head=dict(type='MaskTokenHead', score=0.0, overlap=0.8),
    mask_generator=dict(
        type='FrozenMaskGenerator',
        config='configs/fc-clip/fcclip_convnext-l_coco-panoptic.py',
        checkpoint='data/fcclip_convnext-l.pth',  # by tools/convert_maftp.py
    ),
    input_size=336,  # CLIP's; the generator sees images as the pipeline gives them
    templates='vild',
    synonyms='max',
    test_cfg=dict(mode='whole'),
)
custom_hooks = [dict(type='NonFiniteLossHook')]
