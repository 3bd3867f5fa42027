# CAT-Seg on CLIP ViT-B/16. Sizes that depend on CLIP's widths follow from the built backbone.
_base_ = ['../clip_preprocessor.py']
model = dict(
    type='OpenVocabSegmentor',
    data_preprocessor=dict(size=(384, 384)),
    backbone=dict(
        type='CLIPDualEncoder',
        model_name='ViT-B-16-quickgelu',
        pretrained='openai',  # open_clip tag (downloaded) or .pt, .bin, .safetensors file
        finetune='attention',  # query and value weights of every block of both towers
        dense_mode='catseg',
        with_cp=False,  # recompute activations in the backward pass: less memory, more time
    ),
    decode_head=dict(
        type='CATSegHead',
        hidden_dim=128,
        num_layers=2,
        num_heads=4,
        window_size=12,
        pooling_size=2,  # in training; evaluation does not pool
        pad_len=256,
        text_proj_dim=128,
        appearance_proj_dim=128,
        decoder_dims=(64, 32),
        decoder_guidance_dims=(256, 128),
        decoder_guidance_proj_dims=(32, 16),
        with_cp=True,  # recompute activations: six tenths of the memory, on a CPU in the same time
        # 'negative': ignored pixels count as negatives of every class, as CAT-Seg trains
        loss_decode=dict(type='CATSegBCELoss', ignored='negative'),
    ),
    input_size=384,  # every view is resized to this before CLIP
    templates=('A photo of a {} in the scene',),
    # Image resized to 640 x 640, windows of 384 overlapping by a third, plus the whole image.
    test_cfg=dict(mode='slide', size=(640, 640), window=384, overlap=0.333),
)
custom_hooks = [dict(type='VocabularyHook'), dict(type='NonFiniteLossHook')]
