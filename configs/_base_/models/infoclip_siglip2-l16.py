# InfoCLIP on SigLIP 2 L/16 at 384 pixels. Without network it needs backbone.tokenizer_dir.
_base_ = ['./infoclip_vitb16.py']
model = dict(backbone=dict(model_name='ViT-L-16-SigLIP2-384', pretrained='webli'))
