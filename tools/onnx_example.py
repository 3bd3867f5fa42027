#!/usr/bin/env python
"""Label an image with an exported ONNX file, with NumPy, Pillow and onnxruntime alone.

Usage: python tools/onnx_example.py model.onnx photo.jpg labels.png [words.npz]
"""

import json
import sys

import numpy as np
import onnxruntime
from PIL import Image, ImageOps

model, photo, out = sys.argv[1:4]
session = onnxruntime.InferenceSession(model, providers=['CPUExecutionProvider'])
meta = {k: json.loads(v) for k, v in session.get_modelmeta().custom_metadata_map.items()}
classes, palette = meta['classes'], meta['palette']
image = ImageOps.exif_transpose(Image.open(photo)).convert('RGB')
height, width = meta['input_size']
pixels = np.asarray(image.resize((width, height), Image.Resampling.BILINEAR), np.float32)
feed = {'images': pixels.transpose(2, 0, 1)[None]}  # 0..255; the model normalises
if meta['text'] == 'input':
    words = np.load(sys.argv[4])
    feed['text'], classes, palette = words['text'], words['classes'], words['palette'].tolist()
logits = session.run(['logits'], feed)[0][0]
best = np.full(image.size[::-1], -np.inf, np.float32)
labels = np.zeros(image.size[::-1], np.uint16)
for index, plane in enumerate(logits):
    score = np.asarray(Image.fromarray(plane).resize(image.size, Image.Resampling.BILINEAR))
    labels[score > best] = index
    best = np.maximum(score, best)
Image.fromarray(np.array(palette, np.uint8)[labels]).save(out)
for index in np.argsort(-np.bincount(labels.ravel(), minlength=len(classes)))[:5]:
    print(f'{classes[index]}: {100 * (labels == index).mean():.1f} %')
