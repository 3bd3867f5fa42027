# FC-CLIP on CLIP ConvNeXt-L: CLIP is frozen, masks and in-vocabulary classes are learned.
_base_ = ['../../maft-plus/_base_/maftp_convnext-l.py']
model = dict(
    backbone=dict(finetune='frozen'),
    decode_head=dict(
        proposals=dict(num_queries=250),
        transfer=None,
        # 0.4 for classes that share a name with a training class, 0.8 for others.
        ensemble=dict(alpha=0.4, beta=0.8, seen='maftp_coco_panoptic'),
        loss_mask_aware=None,
        score=0.0,
        overlap=0.8,
    ),
    loss_distill=None,
)
custom_hooks = [dict(type='NonFiniteLossHook')]
