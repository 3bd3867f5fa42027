#!/usr/bin/env python
"""Label an image with an exported ONNX file, with NumPy, Pillow and onnxruntime alone.

How a picture is read (rotation, transparency, 16 bits) is in infoclip_mmseg/utils/images.py, a file
that needs NumPy and Pillow only and goes with this one.

Usage: python tools/onnx_example.py model.onnx photo.jpg labels.png [words.npz]
"""

import json
import math
import sys
from pathlib import Path

import numpy as np
import onnxruntime
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / 'infoclip_mmseg/utils'))
from images import read_image  # type: ignore[import-not-found]

model, photo, out = sys.argv[1:4]
known = ('CUDAExecutionProvider', 'CPUExecutionProvider')  # the first with onnxruntime-gpu
providers = [name for name in known if name in onnxruntime.get_available_providers()]
session = onnxruntime.InferenceSession(model, providers=providers)
meta = {k: json.loads(v) for k, v in session.get_modelmeta().custom_metadata_map.items()}
classes, palette = meta['classes'], meta['palette']
image = Image.fromarray(read_image(photo))
height, width = meta['input_size']
pixels = np.asarray(image.resize((width, height), Image.Resampling.BILINEAR), np.float32)
feed = {'images': pixels.transpose(2, 0, 1)[None]}  # 0..255; the model normalises
if meta['text'] == 'input':
    words = np.load(sys.argv[4])
    feed['text'], classes, palette = words['text'], words['classes'], words['palette'].tolist()
logits = session.run(['logits'], feed)[0][0]
# Of several classes the best one wins; a single one has to pass the threshold of the head.
p = meta['threshold']
least = math.log(p / (1 - p)) if len(classes) == 1 else -np.inf
best = np.full(image.size[::-1], least, np.float32)
labels = np.full(image.size[::-1], len(classes), np.uint16)
for index, plane in enumerate(logits):
    score = np.asarray(Image.fromarray(plane).resize(image.size, Image.Resampling.BILINEAR))
    labels[score > best] = index
    best = np.maximum(score, best)
Image.fromarray(np.array([*palette, [0, 0, 0]], np.uint8)[labels]).save(out)
names = [*classes, 'none of them']
for index in np.argsort(-np.bincount(labels.ravel(), minlength=len(classes)))[:5]:
    print(f'{names[index]}: {100 * (labels == index).mean():.1f} %')
