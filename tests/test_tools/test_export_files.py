"""tools/export.py and tools/onnx_example.py from file to file."""

from __future__ import annotations

import copy
import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.utils import digit_version
from PIL import Image

from infoclip_mmseg.deploy.export import MIN_TORCH

ROOT = Path(__file__).resolve().parents[2]
PHOTO = ROOT / 'tests/data/ade/images/validation/ADE_val_00000001.jpg'
WORDS = ['cat', 'dog', 'tall tree', 'sky', 'car']
OTHER = ['road', 'grass', 'boat', 'sand', 'wall']
ONNX = ('onnx', 'onnxscript', 'onnxruntime')
# Runs the example as if the packages that it must not need were not installed.
BLOCKED = """
import runpy, sys
for name in ('torch', 'torchvision', 'cv2', 'mmseg', 'mmengine', 'mmcv', 'infoclip_mmseg', 'onnx'):
    sys.modules[name] = None
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name='__main__')
"""

needs_onnx = pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in ONNX)
    or digit_version(torch.__version__) < digit_version(MIN_TORCH),
    reason=f'ONNX export needs pip install -e ".[export]" and PyTorch {MIN_TORCH} or newer',
)


@pytest.fixture(scope='module')
def tool():
    """tools/export.py as a module."""
    path = list(sys.path)
    spec = importlib.util.spec_from_file_location('tool_export', ROOT / 'tools/export.py')
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    sys.path[:] = path
    return module


@pytest.fixture(scope='module')
def folder(toy, toy_cfg, tmp_path_factory):
    """Folder with a config and a checkpoint of a toy model."""
    folder = tmp_path_factory.mktemp('export')
    clip = copy.deepcopy(toy_cfg()['backbone']['model_name'])
    clip['vision_cfg']['layers'] = 3
    changes = dict(
        backbone=dict(model_name=clip, out_blocks=(0, 1)), decode_head=dict(num_layers=1)
    )
    (folder / 'toy.py').write_text(f'model = {toy_cfg(distill=True, **changes)!r}\n')
    model = toy(distill=True, **changes)
    meta = dict(dataset_meta=dict(classes=WORDS, palette=[[i, 2 * i, 90] for i in range(5)]))
    torch.save(dict(state_dict=model.state_dict(), meta=meta), folder / 'toy.pth')
    return folder


@pytest.fixture
def export(tool, folder, capsys):
    """The program as a function: ``export('out.onnx', *options)`` -> status and what it printed."""

    def run(out: str, *options: str, checkpoint: str = 'toy.pth') -> tuple[int, str]:
        arguments = [str(folder / name) for name in ('toy.py', checkpoint, out)]
        if checkpoint == 'pretrained':
            arguments[1] = checkpoint
        try:
            status = tool.main([*arguments, *options])
        except SystemExit as stopped:
            status = stopped.code
        printed = capsys.readouterr()
        return status, printed.out + printed.err

    return run


def example(*arguments: object) -> subprocess.CompletedProcess:
    command = [sys.executable, '-c', BLOCKED, ROOT / 'tools/onnx_example.py', *arguments]
    return subprocess.run(list(map(str, command)), capture_output=True, text=True)


@needs_onnx
@pytest.mark.slow
def test_baked_onnx_and_the_example_without_torch(export, folder, tmp_path):
    import onnx
    import onnxruntime

    status, printed = export('baked.onnx', '--batch-size', '2')
    assert status == 0 and 'agrees with PyTorch on 3 images' in printed, printed
    path = folder / 'baked.onnx'
    opsets = {entry.domain: entry.version for entry in onnx.load(path).opset_import}
    assert opsets[''] == 18
    session = onnxruntime.InferenceSession(str(path), providers=['CPUExecutionProvider'])
    assert [entry.shape[1:] for entry in session.get_inputs()] == [[3, 48, 48]]
    meta = session.get_modelmeta().custom_metadata_map
    meta = {key: json.loads(value) for key, value in meta.items()}
    assert meta['classes'] == WORDS and meta['palette'][3] == [3, 6, 90]
    assert meta['input_size'] == [48, 48] and meta['config'] == 'toy'
    assert meta['mean'] == pytest.approx([122.7709383, 116.7460125, 104.09373615])
    assert meta['std'][0] == pytest.approx(68.5005327)

    out = tmp_path / 'labels.png'
    done = example(path, PHOTO, out)
    assert done.returncode == 0, done.stderr
    drawn = np.asarray(Image.open(out))
    assert drawn.shape == np.asarray(Image.open(PHOTO)).shape
    colours = {tuple(colour) for colour in np.unique(drawn.reshape(-1, 3), axis=0).tolist()}
    assert colours <= set(map(tuple, meta['palette']))
    assert done.stdout.splitlines()[0].split(':')[0] in WORDS


@needs_onnx
@pytest.mark.slow
def test_one_word_has_what_passes_the_threshold(export, folder, tmp_path):
    import onnxruntime

    out = tmp_path / 'one.png'
    assert export('one.onnx', '--classes', 'cat', '--no-check')[0] == 0
    session = onnxruntime.InferenceSession(str(folder / 'one.onnx'))
    meta = session.get_modelmeta().custom_metadata_map
    assert json.loads(meta['threshold']) == 0.5
    assert example(folder / 'one.onnx', PHOTO, out).returncode == 0
    photo = Image.open(PHOTO)
    pixels = np.asarray(photo.resize((48, 48), Image.Resampling.BILINEAR), np.float32)
    (logits,) = session.run(['logits'], {'images': pixels.transpose(2, 0, 1)[None]})
    plane = Image.fromarray(logits[0, 0]).resize(photo.size, Image.Resampling.BILINEAR)
    colour = np.array(json.loads(meta['palette'])[0])
    expected = np.where(np.asarray(plane)[..., None] > 0, colour, 0)
    assert np.array_equal(np.asarray(Image.open(out)), expected)


@needs_onnx
@pytest.mark.slow
def test_onnx_with_words_as_an_input(export, folder, tmp_path):
    status, printed = export('open.onnx', '--text', 'input')
    assert status == 0 and 'agrees with PyTorch on 3 images' in printed, printed
    pictures = []
    for index, words in enumerate((WORDS, OTHER, ['tree', 'sea'])):
        status, printed = export(f'words{index}.npz', '--classes', '; '.join(words))
        assert status == 0 and f'{len(words)} classes' in printed
        out = tmp_path / f'{index}.png'
        done = example(folder / 'open.onnx', PHOTO, out, folder / f'words{index}.npz')
        assert done.returncode == 0, done.stderr
        assert {line.split(':')[0] for line in done.stdout.splitlines()} == set(words)
        pictures.append(np.asarray(Image.open(out)))
    assert not np.array_equal(pictures[0], pictures[1])


def test_bad_input_is_one_line(export, folder, tool, monkeypatch):
    def refused(*arguments: str, **kwargs: str) -> str:
        status, printed = export(*arguments, **kwargs)
        assert status == 2 and 'Traceback' not in printed
        assert printed.strip().splitlines()[-1].startswith('pytest: error:') or 'error:' in printed
        return printed

    assert 'must end with one of .onnx, .pt2, .npz' in refused('model.trt')
    assert 'does not exist' in refused('m.npz', checkpoint='none.pth')
    assert 'none of the lists' in refused('m.npz', '--vocabulary', 'ade9')
    assert 'names no classes' in refused('m.npz', checkpoint='pretrained')
    assert 'does not exist' in refused('m.pt2', '--images', 'none.jpg')
    monkeypatch.setattr(tool, 'find_spec', lambda name: None)
    message = refused('m.onnx')
    assert 'needs onnx, onnxscript, onnxruntime: pip install -e ".[export]"' in message
    assert 'needs onnx, onnxscript: pip' in refused('m.onnx', '--no-check')
    assert not list(folder.glob('m.*'))


def test_words_are_written_for_numpy(export, folder):
    status, _ = export('w.npz', '--classes', 'red car, automobile; 树', checkpoint='pretrained')
    assert status == 0
    words = np.load(folder / 'w.npz')
    assert words['classes'].tolist() == ['red car, automobile', '树']
    assert words['text'].shape == (2, 1, 32) and words['palette'].shape == (2, 3)
    np.testing.assert_allclose(np.linalg.norm(words['text'], axis=-1), 1, atol=1e-5)


def test_a_file_that_disagrees_fails(export, tool, monkeypatch):
    if digit_version(torch.__version__) < digit_version(MIN_TORCH):
        pytest.skip(f'exporting needs PyTorch {MIN_TORCH} or newer')
    original = tool.export_program

    def damaged(model, text, bake):
        return original(model, text + 0.05, bake)

    monkeypatch.setattr(tool, 'export_program', damaged)
    status, printed = export('damaged.pt2')
    assert status == 1 and 'DISAGREES' in printed


@needs_onnx
@pytest.mark.slow
def test_half(export, folder):
    """Weights in float16, in- and outputs in float32, labels as PyTorch's but for a few."""
    import onnx

    status, said = export('half.onnx', '--half')
    assert status == 0 and 'agrees with PyTorch on 3 images' in said, said
    assert export('full.onnx', '--no-check')[0] == 0
    half, full = (onnx.load(folder / name) for name in ('half.onnx', 'full.onnx'))
    for proto in (half, full):
        types = [x.type.tensor_type.elem_type for x in (*proto.graph.input, *proto.graph.output)]
        assert set(types) == {onnx.TensorProto.FLOAT}
    sizes = [(folder / name).stat().st_size for name in ('half.onnx', 'full.onnx')]
    assert sizes[0] < 0.75 * sizes[1]
    assert {p.key: p.value for p in half.metadata_props} == {
        p.key: p.value for p in full.metadata_props
    }
    status, said = export('half.pt2', '--half')
    assert status == 2 and '--half is for .onnx files' in said
