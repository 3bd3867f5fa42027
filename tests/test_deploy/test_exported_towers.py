"""ONNX files of models on EVA-02 and SigLIP agree with PyTorch on the real images."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from mmengine.utils import digit_version
from PIL import Image
from timm_toys import clip_config

from infoclip_mmseg.deploy import export

WORDS = ['cat', 'dog', 'tall tree', 'sky', 'car']


@pytest.mark.slow
@pytest.mark.skipif(
    digit_version(torch.__version__) < digit_version(export.MIN_TORCH),
    reason=f'exporting needs PyTorch {export.MIN_TORCH} or newer',
)
@pytest.mark.parametrize('kind', ['toy_eva02', 'toy_siglip'])
def test_onnx(kind, toy, tmp_path, ade_root):
    for name in ('onnx', 'onnxscript', 'onnxruntime'):
        pytest.importorskip(name)
    backbone = dict(model_name=clip_config(kind), out_blocks=(1, 2))
    model = toy(backbone=backbone, decode_head=dict(num_layers=1)).eval()
    model.set_vocabulary(WORDS)
    with torch.no_grad():
        text = model.backbone.embed_prompts(model.prompts)
    path = tmp_path / 'model.onnx'
    export.save_onnx(export.export_program(model, text), path, export.describe(model, kind, True))
    paths = sorted((ade_root / 'images/validation').iterdir())
    images = [np.asarray(Image.open(p).convert('RGB')) for p in paths]
    found = export.check_export(path, model, images, None, 2)
    assert found.good() and found.difference < export.MAX_DIFFERENCE
