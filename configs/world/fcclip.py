# FC-CLIP on the composed world: CLIP is frozen, masks and in-vocabulary classes are learned.
# python tools/train.py configs/world/fcclip.py
_base_ = ['./_base_/masks.py']
_seen = 'configs/world/words/seen_12.txt'
model = dict(
    backbone=dict(finetune='frozen'),
    decode_head=dict(
        transfer=None, ensemble=dict(alpha=0.4, beta=0.8, seen=_seen), loss_mask_aware=None
    ),
    loss_distill=None,
)
