"""Integrations are importable alone and give what the SDKs of the tools take."""

from __future__ import annotations

import json
import os
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


class TestRay:
    def test_rows(self, photo, tmp_path):
        from infoclip_mmseg.integrations.ray import SegmentImages

        Image.fromarray(photo).save(tmp_path / 'a.png')
        (tmp_path / 'b.png').write_bytes(b'none')
        paths = np.array([str(tmp_path / name) for name in ('a.png', 'b.png', 'c.png')])
        segment = SegmentImages(WORDS, background=['snow'], device='cpu')
        rows = segment(dict(path=paths, number=np.arange(3)))
        [expected] = load_inferencer(device='cpu')(Image.fromarray(photo), WORDS, ['snow'])
        assert rows['areas'][0].tolist() == expected.areas.tolist()
        assert json.loads(rows['segments'][0]) == expected.to_coco_rle()
        assert (rows['height'][0], rows['width'][0]) == photo.shape[:2]
        assert rows['error'][0] == '' and 'no image of a known format' in rows['error'][1]
        assert 'c.png' in rows['error'][2] and rows['areas'][1:].sum() == 0
        assert rows['number'].tolist() == [0, 1, 2]
        content = np.array([(tmp_path / 'a.png').read_bytes()], dtype=object)
        again = segment(dict(bytes=content, number=np.arange(1)))
        assert again['segments'][0] == rows['segments'][0] and 'bytes' not in again
        with pytest.raises(ValueError, match=r"a column bytes or path, got \['url'\]"):
            segment(dict(url=paths))

    @pytest.mark.slow
    def test_a_worker_that_dies_loses_nothing(self, photo, tmp_path):
        pytest.importorskip('ray')
        (tmp_path / 'photos').mkdir()
        for number in range(60):
            picture = Image.fromarray(np.roll(photo, number, axis=1))
            picture.save(tmp_path / f'photos/{number:02}.png')
        env = {**os.environ, 'PYTHONPATH': str(ROOT), 'OMP_NUM_THREADS': '1'}
        command = [sys.executable, '-c', CLUSTER, str(tmp_path)]
        done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr[-3000:]
        rows = json.loads((tmp_path / 'rows.json').read_text())
        assert sorted(Path(row['path']).stem for row in rows) == [f'{n:02}' for n in range(60)]
        assert all(row['error'] == '' and sum(row['areas']) == 64 * 64 for row in rows)
        assert (tmp_path / 'killed').exists()


CLUSTER = '''
import json, os, pathlib, signal, sys
import ray
from infoclip_mmseg.integrations.ray import SegmentImages

place = pathlib.Path(sys.argv[1])

class Mortal(SegmentImages):
    """The first worker that gets to its third batch is killed."""

    def __call__(self, batch):
        self.calls = getattr(self, 'calls', 0) + 1
        if self.calls == 3:
            try:
                (place / 'killed').touch(exist_ok=False)
            except FileExistsError:
                pass
            else:
                os.kill(os.getpid(), signal.SIGKILL)
        return super().__call__(batch)

ray.init(num_cpus=2, include_dashboard=False, object_store_memory=200_000_000)
paths = [dict(path=str(path)) for path in sorted((place / 'photos').iterdir())]
rows = ray.data.from_items(paths, override_num_blocks=12).map_batches(
    Mortal,
    fn_constructor_kwargs=dict(classes='grass; snow', device='cpu'),
    batch_size=5,
    concurrency=2,
).take_all()
keys = ('path', 'error', 'areas')
plain = [{key: getattr(row[key], 'tolist', lambda v=row[key]: v)() for key in keys} for row in rows]
(place / 'rows.json').write_text(json.dumps(plain))
'''
