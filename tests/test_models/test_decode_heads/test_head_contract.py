"""All heads, and a toy-sized one that classifies masks, by the same tests."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import convnext
import mask_tokens
import numpy as np
import pytest
import torch
from head_contract import HeadContract
from mmengine.config import Config
from mmengine.runner import save_checkpoint
from mmengine.structures import PixelData
from mmseg.structures import SegDataSample
from PIL import Image
from toy_mask_head import ToyMaskHead

from infoclip_mmseg import OpenVocabInferencer

ROOT = Path(__file__).resolve().parents[3]
MASKS = dict(type='ToyMaskHead')


class TestCATSegHead(HeadContract):
    limit = 8


class TestCATSegHeadOfAllClasses(HeadContract):
    options = dict(pad_len=0, pooling_size=1)


class TestCATSegHeadOfSelectedClasses(HeadContract):
    options = dict(num_decoded=3, num_decoded_train=2)
    limit = 3


class TestCosineHead(HeadContract):
    decode_head = dict(type='CosineHead')


class TestZeroShotHead(HeadContract):
    decode_head = dict(type='ZeroShotHead', threshold=0.1)
    fewest = 2
    modes = ('windows', 'whole')


class TestZeroShotHeadOfSynonyms(TestZeroShotHead):
    changes = dict(synonyms='max', templates=['a {}', 'the {}'])


class TestMaskClassificationHead(HeadContract):
    decode_head = convnext.MASKS
    changes = convnext.mask_config()
    fewest = 2


class TestMaskClassificationHeadOfFCCLIP(TestMaskClassificationHead):
    decode_head = dict(
        type='MaskClassificationHead',
        proposals=convnext.PROPOSALS,
        ensemble=dict(alpha=0.4, beta=0.8, seen=['thing 0', 'thing 2']),
    )
    changes = convnext.mask_config(backbone=dict(finetune='frozen'))


class TestMaskTokenHead(HeadContract):
    decode_head = dict(type='MaskTokenHead')
    changes = mask_tokens.config()
    fewest = 2

    def bring(self, features):
        owner = torch.randn(2, 5, 7, 9).argmax(dim=1, keepdim=True)  # masks that do not overlap
        masks = torch.where(owner == torch.arange(5)[:, None, None], 20.0, -20.0)
        return features._replace(masks=masks)

    def test_loss(self, model, features, counts):
        """All that trains is the encoder's."""
        for count in counts:
            labels = torch.randint(0, count, (2, 1, 24, 40))
            samples = [SegDataSample(gt_sem_seg=PixelData(data=label)) for label in labels]
            text, targets = self.text(model, count), model.decode_head.targets(samples)
            losses = model.decode_head.loss(features, text, targets)
            self.check_losses(losses, [p for p in model.parameters() if p.requires_grad])


class TestMaskTokenHeadOfSynonymsWithMaskPooling(TestMaskTokenHead):
    options = dict(ensemble=dict(alpha=0.4, beta=0.8, seen=['thing 0', 'thing 2']))
    changes = mask_tokens.config(synonyms='max', templates=['a {}', 'the {}'])


class TestToyMaskHead(HeadContract):
    decode_head = MASKS


# A head that classifies masks, through everything that surrounds a head -----------------------


@pytest.fixture
def mask_config(toy_cfg):
    return {**toy_cfg(), 'decode_head': dict(MASKS)}


def test_a_mask_head_trains_and_is_evaluated(make_runner, mask_config):
    runner = make_runner(mask_config, max_iters=3)
    before = runner.model.decode_head.queries.detach().clone()
    runner.train()
    assert isinstance(runner.model.decode_head, ToyMaskHead)
    assert all('decode.loss_mask' in losses for losses in runner.recorder.losses)
    assert not torch.equal(runner.model.decode_head.queries, before)
    assert 'mIoU' in runner.test()


def test_segments_come_from_the_head(mask_config, toy):
    from mmseg.registry import MODELS

    torch.manual_seed(0)
    model = MODELS.build(mask_config)
    results = model.segments(torch.rand(2, 3, 50, 70) * 255, ['sky', 'wall', 'tree'], threshold=0)
    for ids, segments in results:
        assert ids.shape == (50, 70)
        assert sorted(ids.unique().tolist()) == [segment['id'] for segment in segments]
        assert all(segment['area'] == (ids == segment['id']).sum() for segment in segments)
    with pytest.raises(TypeError, match='CATSegHead labels positions and finds no masks'):
        toy().segments(torch.rand(1, 3, 50, 70) * 255, ['sky'])


@pytest.fixture
def saved(mask_config, tmp_path):
    """A config file and a checkpoint of a model with the toy head."""
    from mmseg.registry import MODELS

    checkpoint = tmp_path / 'masks.pth'
    save_checkpoint(dict(state_dict=MODELS.build(mask_config).state_dict()), str(checkpoint))
    imports = dict(imports=['infoclip_mmseg', 'toy_mask_head'], allow_failed_imports=False)
    config = tmp_path / 'masks.py'
    Config(dict(model=mask_config, custom_imports=imports)).dump(config)
    return config, checkpoint


def test_own_images_and_words(saved, ade_root):
    config, checkpoint = saved
    segmenter = OpenVocabInferencer(str(config), weights=str(checkpoint))
    image = ade_root / 'images/validation/ADE_val_00000001.jpg'
    (result,) = segmenter(str(image), ['sky', 'wall'], return_scores=True)
    assert result.labels.shape == result.scores.shape[1:]
    np.testing.assert_array_equal(result.labels, result.scores.argmax(axis=0))
    with pytest.raises(ValueError, match='a ToyMaskHead has weights of its own'):
        OpenVocabInferencer(str(config))


def test_the_program_for_own_images(saved, ade_root, tmp_path):
    config, checkpoint = saved
    program = f'import sys; sys.path[:0] = [{str(ROOT)!r}, {str(ROOT / "tests")!r}, '
    program += f'{str(ROOT / "tools")!r}]; import infer; sys.exit(infer.main())'
    arguments = [ade_root / 'images/validation/ADE_val_00000001.jpg', '--classes', 'sky; wall']
    arguments += ['--config', config, '--weights', checkpoint, '--out', tmp_path / 'out']
    done = subprocess.run(
        [sys.executable, '-c', program, *map(str, arguments)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-2000:]
    summary = json.loads((tmp_path / 'out/summary.json').read_text(encoding='utf-8'))
    assert summary['images'] == 1 and summary['found']
    assert np.array(Image.open(tmp_path / 'out/pred/ADE_val_00000001.png')).max() <= 1
