# SAN with CLIP ViT-B/16 on COCO-Stuff, with InfoCLIP's teacher, LPAM and losses beside it.
# python tools/train.py configs/compose/infoclip_san_vitb16_coco-stuff.py
_base_ = [
    './_base_/san_vitb16.py',
    './_base_/infoclip.py',
    './_base_/coco-stuff_640.py',
    '../_base_/default_runtime.py',
]
embeddings = dict(
    module='decode_head.rec_with_attnbias',
    masks=dict(module='decode_head.side_adapter_network', index=(0, -1)),
)
model = dict(
    _delete_=True,
    type='DistilledSegmentor',
    student=_base_.model,
    distillation=dict(
        **_base_.distillation, dense=embeddings, text=dict(module='text_encoder'), input_size=320
    ),
)
