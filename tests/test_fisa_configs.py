"""configs/fisa: recipe, masks and words of FISA, and the rows of its comparison."""

from __future__ import annotations

from pathlib import Path

import pytest
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from test_configs import build_small

from infoclip_mmseg.experiments.ablation.jobs import plan_jobs
from infoclip_mmseg.experiments.ablation.spec import read_ablation

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / 'configs/fisa'
CONFIGS = sorted(p for p in FOLDER.glob('*.py') if not p.stem.startswith('ablation'))
CLIPS = {'vitl14': ('ViT-L-14-336-quickgelu', 336), 'vitb16': ('ViT-B-16-quickgelu', 384)}
WORDS = {'ade20k': 'ade150', 'ade20k-panoptic': 'ade150', 'coco-panoptic': 'coco_panoptic'}
WORDS |= {key: key for key in ('ade847', 'pc59', 'pc459', 'voc20')}
FULL = [path for path in CONFIGS if path.stem.startswith('fisa_vit')]


def load(path: Path) -> Config:
    return Config.fromfile(path)


def test_both_towers_have_their_benchmarks():
    assert {path.stem for path in FULL} == {f'fisa_{c}_{d}' for c in CLIPS for d in WORDS}


@pytest.mark.parametrize('path', CONFIGS, ids=lambda path: path.stem)
def test_a_config_is_short_and_starts_with_its_command(path):
    lines = path.read_text().splitlines()
    assert len(lines) < 20
    tool = 'test' if path.stem.split('_')[-1] in {*WORDS} - {'coco-panoptic'} else 'train'
    assert lines[1].startswith(f'# python tools/{tool}.py {path.relative_to(ROOT)}')


@pytest.mark.parametrize('path', FULL, ids=lambda path: path.stem)
def test_clip_words_and_masks(path):
    _, clip, data = path.stem.split('_')
    cfg = load(path)
    name, side = CLIPS[clip]
    assert (cfg.model.backbone.model_name, cfg.model.input_size) == (name, side)
    [hook] = [h for h in cfg.custom_hooks if h.type == 'VocabularyHook']
    assert hook.vocabularies['test'] == f'maftp_{WORDS[data]}'
    assert (ROOT / cfg.model.mask_generator.config).is_file()
    kinds = [step.type for step in cfg.test_dataloader.dataset.pipeline]
    assert (
        ('LoadPanoptic' in kinds)
        is ('panoptic' in data)
        is bool(cfg.model.test_cfg.get('panoptic'))
    )
    [resize] = [s for s in cfg.test_dataloader.dataset.pipeline if s.type == 'Resize']
    assert resize.scale == (1333, 800)


def test_the_recipe_is_that_of_masqclip():
    cfg = load(FOLDER / 'masqclip_vitl14_coco-panoptic.py')
    assert cfg.train_cfg.max_iters == 10000 and cfg.train_dataloader.batch_size == 4
    [schedule] = cfg.param_scheduler
    assert (schedule.type, schedule.milestones) == ('MultiStepLR', [9000])
    model = build_small(cfg)
    groups = build_optim_wrapper(model, cfg.optim_wrapper).optimizer.param_groups
    assert {group['lr'] for group in groups} == {1e-4}
    trained = {n for n, p in model.named_parameters() if p.requires_grad}
    assert trained and all(n.startswith('backbone.mask_queries.') for n in trained)
    loss = model.decode_head.loss_decode
    assert (loss.loss_weight, loss.void_weight) == (2.0, 0.1)


def test_the_gate_does_not_decay():
    cfg = load(FOLDER / 'fisa_vitl14_coco-panoptic.py')
    model = build_small(cfg)
    groups = build_optim_wrapper(model, cfg.optim_wrapper).optimizer.param_groups
    decay = {id(p): group['weight_decay'] for group in groups for p in group['params']}
    layer = model.backbone.word_attention[0]
    assert (decay[id(layer.gate)], decay[id(layer.key.weight)]) == (0.0, 1e-4)


def test_rows_of_the_composed_world(monkeypatch):
    """They differ in the method; what is frozen is frozen, and every row builds and learns."""
    monkeypatch.chdir(ROOT)
    path = FOLDER / 'ablation_world.py'
    assert f'# python tools/ablation.py {path.relative_to(ROOT)}' in path.read_text()
    ablation = read_ablation(path)
    rows = {}
    for job in plan_jobs(ablation):
        assert list(job.tests) == ['joint', 'true masks', 'true classes']
        oracles = [job.tests[name].model.test_cfg.get('oracle') for name in job.tests]
        assert oracles == [None, 'masks', 'classes']
        rows.setdefault(job.run.name, job)
    sizes = {}
    for name, job in rows.items():
        model = build_small(job.config)
        sizes[name] = sum(p.numel() for p in model.backbone.parameters() if p.requires_grad)
        assert bool(sizes[name]) is job.run.train
    queries, words = sizes['MasQCLIP (SIMO only)'], sizes['SEVE only']
    assert queries == 4 * (128 * 128 + 128) and words == 2 * (128 * 128 + 128) + 1
    assert sizes['FISA'] == sizes['FISA + FiSeR'] == queries + words
