"""ForgettingHook in training, resuming and testing."""

from __future__ import annotations

import json

import pytest
import torch

from infoclip_mmseg.engine import ForgettingHook

WORDS = ['zebra', 'wall', 'violin', 'sky']  # two of them are classes of ADE20K


def hooks(teacher: bool = False, **options) -> list[dict]:
    check = dict(type='ForgettingHook', words=WORDS, num_images=2, **options)
    parts = [dict(type='VocabularyHook'), check]
    return [*parts, dict(type='FrozenTeacherHook')] if teacher else parts


def rows_of(folder) -> list[dict]:
    return json.loads((folder / 'forgetting.json').read_text(encoding='utf-8'))


@pytest.fixture
def config(toy_cfg, toy_weights):
    return toy_cfg(backbone=dict(pretrained=str(toy_weights), finetune='full'))


def test_before_during_and_after_training(make_runner, config, tmp_path):
    fast = dict(type='AdamW', lr=0.05)
    wrapper = dict(type='OptimWrapper', optimizer=fast)
    runner = make_runner(
        config,
        tmp_path / 'a',
        max_iters=4,
        custom_hooks=hooks(interval=3),
        optim_wrapper=wrapper,
        log_level='INFO',
    )
    runner.train()
    rows = rows_of(tmp_path / 'a')
    assert [row['iteration'] for row in rows] == [0, 3, 4]
    assert rows[0]['agreement'] == 100 and abs(rows[0]['image_drift']) < 1e-6
    assert rows[-1]['image_drift'] > 1e-3 and rows[-1]['text_drift'] > 1e-3
    assert all('trained_mIoU' in row and 'other_mIoU' not in row for row in rows)
    assert (tmp_path / 'a/forgetting.png').is_file()
    log = next((tmp_path / 'a').glob('*/*.log')).read_text(encoding='utf-8')
    assert 'forgetting, iteration 3: the tuned CLIP labels' in log and 'on 2 words' in log
    scalars = next((tmp_path / 'a').glob('*/vis_data/scalars.json')).read_text()
    assert 'forgetting/agreement' in scalars


def test_the_training_is_the_same_with_the_check(make_runner, config, tmp_path):
    """And so are its random numbers, which dropout would take."""
    losses, states = [], []
    for name, custom in (('a', hooks()), ('b', hooks()[:1])):
        runner = make_runner(config, tmp_path / name, max_iters=3, custom_hooks=custom)
        runner.train()
        losses.append(runner.recorder.losses)
        states.append(torch.random.get_rng_state())
    assert losses[0] == losses[1] and torch.equal(*states)


def test_a_resumed_run_goes_on_with_the_curve(make_runner, config, tmp_path):
    options = dict(max_iters=4, custom_hooks=hooks(interval=1))
    make_runner(config, tmp_path / 'a', **options).train()
    before = rows_of(tmp_path / 'a')
    resumed = make_runner(
        config, tmp_path / 'a', resume=True, load_from=str(tmp_path / 'a/iter_2.pth'), **options
    )
    resumed.train()
    after = rows_of(tmp_path / 'a')
    assert [row['iteration'] for row in after] == [0, 1, 2, 3, 4]
    assert after[2] == pytest.approx(before[2], rel=1e-4, abs=1e-6)


def test_warning_says_what_to_do(make_runner, toy_cfg, tmp_path, toy_weights):
    model = toy_cfg(
        backbone=dict(pretrained=str(toy_weights)), loss_distill=[dict(type='CauchySchwarzLoss')]
    )
    custom = hooks(teacher=True, warn_below=100.5)
    runner = make_runner(model, tmp_path / 'a', max_iters=1, custom_hooks=custom, log_level='INFO')
    runner.train()
    log = next((tmp_path / 'a').glob('*/*.log')).read_text(encoding='utf-8')
    assert 'CLIP forgets: ' in log and 'CauchySchwarzLoss' in log and 'interpolate.py' in log


def test_in_a_test(make_runner, config, tmp_path):
    runner = make_runner(config, tmp_path / 'a', max_iters=2, custom_hooks=hooks())
    runner.train()
    expected = rows_of(tmp_path / 'a')[-1]
    tester = make_runner(
        config,
        tmp_path / 'b',
        custom_hooks=hooks(seen=['wall', 'sky']),
        load_from=str(tmp_path / 'a/iter_2.pth'),
    )
    tester.test()
    [row] = rows_of(tmp_path / 'b')
    for name in ('agreement', 'image_drift', 'text_drift'):
        assert row[name] == pytest.approx(expected[name], rel=1e-3, abs=1e-5)
    assert 'other_mIoU' in row or 'trained_mIoU' in row


def test_wrong_use_is_refused(make_runner, toy_cfg, config, tmp_path):
    with pytest.raises(ValueError, match='num_images and interval must be 1 or more, got 0'):
        ForgettingHook(WORDS, num_images=0)
    trained = [dict(type='VocabularyHook'), dict(type='ForgettingHook', words=['wall', 'Sky'])]
    with pytest.raises(ValueError, match='every word of ForgettingHook is a trained class'):
        make_runner(config, tmp_path / 'a', custom_hooks=trained).train()
    make_runner(toy_cfg(), tmp_path / 'b', max_iters=2, custom_hooks=hooks()[:1]).train()
    tester = make_runner(
        toy_cfg(), tmp_path / 'c', custom_hooks=hooks(), load_from=str(tmp_path / 'b/iter_2.pth')
    )
    with pytest.raises(ValueError, match=r'untouched CLIP: set model\.backbone\.pretrained'):
        tester.test()
