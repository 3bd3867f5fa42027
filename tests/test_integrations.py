"""Integrations are importable alone and give what the SDKs of the tools take."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from infoclip_mmseg.integrations.loading import load_inferencer
from infoclip_mmseg.world import ComposedWorldDataset

ROOT = Path(__file__).resolve().parents[1]
WORDS = 'red striped object, stripes; grass'


@pytest.fixture(scope='module')
def photo() -> np.ndarray:
    return ComposedWorldDataset(length=1, split='test', seed=1, pipeline=[]).scene(0).image


def test_no_tool_is_needed_to_import():
    program = (
        'import sys\n'
        'sys.modules.update(cvat_sdk=None, fiftyone=None)\n'
        'import infoclip_mmseg.integrations.cvat, infoclip_mmseg.integrations.fiftyone\n'
    )
    env = dict(PYTHONPATH=str(ROOT), PATH='/usr/bin:/bin')
    done = subprocess.run([sys.executable, '-c', program], capture_output=True, text=True, env=env)
    assert done.returncode == 0, done.stderr[-2000:]


def test_models_by_name_and_folder(tmp_path, photo):
    first = load_inferencer(device='cpu')
    folder = first.save_pretrained(tmp_path / 'model', WORDS)
    second = load_inferencer(str(folder), device='cpu')
    assert second.classes == ['red striped object, stripes', 'grass']
    results = [model(photo, WORDS)[0].labels for model in (first, second)]
    np.testing.assert_array_equal(*results)
    with pytest.raises(FileNotFoundError, match='nor found by name'):
        load_inferencer('nothing')


class TestCvat:
    @pytest.fixture(scope='class')
    def function(self):
        pytest.importorskip('cvat_sdk.auto_annotation')
        from infoclip_mmseg.integrations.cvat import create

        return create(classes=WORDS, device='cpu')

    def test_spec(self, function):
        labels = function.spec.labels
        assert [(x.id, x.name, x.type) for x in labels] == [
            (0, 'red striped object', 'mask'),
            (1, 'grass', 'mask'),
        ]

    def test_masks(self, function, photo):
        context = SimpleNamespace(conf_threshold=None, conv_mask_to_poly=False)
        shapes = function.detect(context, Image.fromarray(photo))
        [expected] = function.inferencer(Image.fromarray(photo), WORDS)
        regions = expected.regions().regions
        assert [s.label_id for s in shapes] == [r.label for r in regions]
        for shape, region in zip(shapes, regions):
            *runs, left, top, right, bottom = map(int, shape.points)
            flat = np.repeat(np.arange(len(runs)) % 2, runs)
            inner = flat.reshape(bottom - top + 1, right - left + 1)
            assert np.array_equal(inner, region.mask[top : bottom + 1, left : right + 1])

    def test_polygons_and_threshold(self, function, photo):
        context = SimpleNamespace(conf_threshold=None, conv_mask_to_poly=True)
        shapes = function.detect(context, Image.fromarray(photo))
        assert shapes and all(len(s.points) % 2 == 0 and len(s.points) >= 6 for s in shapes)
        context.conf_threshold = 1.01
        assert function.detect(context, Image.fromarray(photo)) == []


def test_fiftyone(photo, tmp_path):
    fiftyone = pytest.importorskip('fiftyone')
    from infoclip_mmseg.integrations import fiftyone as module

    module.download_model('name', str(tmp_path / 'model'))
    model = module.load_model('name', str(tmp_path / 'model'), classes=WORDS, device='cpu')
    assert isinstance(model, fiftyone.Model) and model.media_type == 'image'
    assert model.mask_targets == {1: 'red striped object, stripes', 2: 'grass'}
    found = model.predict(photo)
    [expected] = load_inferencer(device='cpu')(Image.fromarray(photo), WORDS)
    assert isinstance(found, fiftyone.Segmentation) and found.mask.dtype == np.uint8
    np.testing.assert_array_equal(found.mask, expected.labels + 1)
    assert len(model.predict_all([photo, photo])) == 2


def test_the_manifest_is_fiftyones(tmp_path):
    zoo = pytest.importorskip('fiftyone.zoo.models')
    path = ROOT / 'infoclip_mmseg/integrations/fiftyone/manifest.json'
    manifest = zoo.RemoteZooModelsManifest.from_json(str(path))
    [model] = list(manifest)
    assert model.name == json.loads(path.read_text())['models'][0]['base_name']
