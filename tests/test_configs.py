"""Every file in configs/: it parses, its parts build, and it says what its name promises."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import open_clip
import pytest
from convnext import CONVNEXT, PROPOSALS
from mmengine.config import Config
from mmengine.dataset import Compose
from mmengine.evaluator import Evaluator
from mmengine.optim import build_optim_wrapper
from mmseg.registry import DATASETS, HOOKS, MODELS
from PIL import Image

from infoclip_mmseg.datasets.vocabularies import load_vocabulary
from infoclip_mmseg.experiments.ablation.jobs import plan_jobs
from infoclip_mmseg.experiments.ablation.spec import read_ablation
from infoclip_mmseg.models.backbones.dense_modes import DENSE_MODES
from infoclip_mmseg.world.attributes import WorldSpec, distractor_names

ROOT = Path(__file__).resolve().parents[1]
CONFIGS = sorted(p for p in (ROOT / 'configs').rglob('*.py') if '_base_' not in p.parts)
MASK_METHODS = {  # by file: CLIP trains, with a transfer or not, and the distillation's losses
    'fcclip': (False, False, []),
    'maftp': (True, True, ['RepresentationCompensationLoss']),
    'maftp_no_rc': (True, True, []),
    'maftp_no_cdt': (True, False, ['RepresentationCompensationLoss']),
    'infoclip_maftp': (True, True, ['InfoBottleneckLoss', 'MITransferLoss']),
}
PRETRAINING = [path for path in CONFIGS if path.stem.startswith('pretrain')]
ABLATIONS = [path for path in CONFIGS if path.stem.startswith('ablation')]
STUDY = [path for path in CONFIGS if path.parent.name == 'study']
COMPOSED = [path for path in CONFIGS if path.parent.name == 'compose']  # test_compose_configs.py
SEGMENTORS = [path for path in CONFIGS if path not in (*PRETRAINING, *ABLATIONS, *COMPOSED, *STUDY)]
TRAINED_ABLATIONS = [
    path
    for path in ABLATIONS
    if path.stem not in ('ablation_dense_modes', 'ablation_masks')
    and path.parent.name != 'fisa'  # test_fisa_configs.py
]
WORLD_MASKS = [
    path for path in SEGMENTORS if path.parent.name == 'world' and path.stem in MASK_METHODS
]
WORLD = [p for p in SEGMENTORS if p.parent.name == 'world' and p not in WORLD_MASKS]
CLEARCLIP = [path for path in SEGMENTORS if path.parent.name == 'clearclip']
RUNS = sorted((ROOT / 'configs').glob('*.py'))
DATA_ROOTS = {
    'coco-stuff': ('COCOStuffDataset', 'data/coco_stuff164k'),
    'ade20k': ('ADE20KDataset', 'data/ade/ADEChallengeData2016'),
    'ade847': ('ADE20K847Dataset', 'data/ADE20K_2021_17_01'),
    'pc459': ('PascalContext459Dataset', 'data/VOCdevkit/VOC2010'),
    'pc59': ('VocabularyDataset', 'data/VOCdevkit/VOC2010'),
    'voc20': ('PascalVOC20Dataset', 'data/VOCdevkit/VOC2012'),
    'voc20b': ('PascalVOC20bDataset', 'data/VOCdevkit/VOC2012'),
}
CLIP_NAMES = {
    'vitb16': ('ViT-B-16-quickgelu', 384, 16),
    'vitl14': ('ViT-L-14-336-quickgelu', 336, 14),
}
# With configs for training only: open_clip name, tag, input size, grid.
OTHER_CLIPS = {
    'eva02-b16': ('EVA02-B-16', 'merged2b_s8b_b131k', 384, 24),
    'eva02-l14': ('EVA02-L-14-336', 'merged2b_s6b_b61k', 336, 24),
    'siglip2-l16': ('ViT-L-16-SigLIP2-384', 'webli', 384, 24),
}
TOY_CLIP = dict(
    embed_dim=32,
    quick_gelu=True,
    vision_cfg=dict(image_size=32, layers=3, width=64, head_width=32, patch_size=8),
    text_cfg=dict(context_length=16, vocab_size=49408, width=32, heads=2, layers=1),
)


METHODS = {  # by file: with LPAM or not, and the losses between teacher and student
    'catseg': (False, []),
    'kl': (False, ['KLDistillationLoss']),
    'maft': (False, ['SelfDistillationLoss']),
    'maft_plus': (False, ['RepresentationCompensationLoss']),
    'cost_volume_mi': (False, ['MITransferLoss']),
    'lpam_kl': (True, ['KLDistillationLoss']),
    'infoclip_l_c': (True, ['InfoBottleneckLoss']),
    'infoclip_l_d': (True, ['MITransferLoss']),
    'infoclip': (True, ['InfoBottleneckLoss', 'MITransferLoss']),
}
GUARDED = {  # by file, as METHODS; not in the comparisons with the paper's table
    'cauchy_schwarz': (False, ['CauchySchwarzLoss']),
    'infoclip_cs': (False, ['CauchySchwarzLoss']),
}
SELECTION = ('num_decoded_train', 'undecoded')  # the method of ablation_compact.py
COMPARISONS = ('ablation', 'ablation_table2')
RIVALS = sorted((ROOT / 'configs/distillation').glob('*_coco-stuff.py'))


def name_of(path: Path) -> str:
    return path.stem


def parts(path: Path) -> tuple[str, str, str]:
    """Method, CLIP and data set by the name of a file."""
    method, clip, data = path.stem.split('_')
    return method, clip, data


def load(path: Path) -> Config:
    return Config.fromfile(path)


def losses_of(cfg: Config) -> list[str]:
    """Types of the losses between teacher and student."""
    named = [cfg.model.get(key) for key in ('loss_ib', 'loss_mi')]
    return [loss.type for loss in [*named, *(cfg.model.get('loss_distill') or [])] if loss]


def build_small(cfg: Config):
    """The config's model on a CLIP of toy size."""
    name = cfg.model.backbone.model_name
    if isinstance(name, str):
        small = CONVNEXT if name.startswith('convnext') else TOY_CLIP
        cfg.model.backbone.update(model_name=small, pretrained=None)
        if 'proposals' in cfg.model.decode_head:
            sizes = {k: v for k, v in PROPOSALS.items() if k != 'num_queries'}
            cfg.model.decode_head.proposals.update(sizes)
    return MODELS.build(cfg.model)


def test_the_promised_files_are_there():
    expected = {
        f'{method}_{clip}_{data}'
        for method in ('infoclip', 'catseg')
        for clip in CLIP_NAMES
        for data in DATA_ROOTS
    }
    assert expected <= {path.stem for path in RUNS}


@pytest.mark.parametrize('path', RUNS, ids=name_of)
def test_a_run_is_short_and_starts_with_its_command(path):
    lines = path.read_text().splitlines()
    tool, rest = ('train', '') if parts(path)[2] == 'coco-stuff' else ('test', ' CHECKPOINT')
    assert len(lines) < 20
    assert lines[0].startswith('# ')
    assert lines[1] == f'# python tools/{tool}.py configs/{path.name}{rest}'


@pytest.mark.parametrize('path', RUNS, ids=name_of)
def test_a_run_has_the_model_of_its_name(path):
    method, clip, _ = parts(path)
    cfg = load(path)
    if clip in OTHER_CLIPS:
        name, tag, input_size, grid = OTHER_CLIPS[clip]
        assert cfg.model.backbone.pretrained == tag in open_clip.list_pretrained_tags_by_model(name)
        patch = int(clip[-2:])
        assert input_size == grid * patch
    else:
        name, input_size, patch = CLIP_NAMES[clip]
        clip_cfg = open_clip.get_model_config(name)
        assert clip_cfg['quick_gelu']
        assert clip_cfg['vision_cfg']['patch_size'] == patch
    assert cfg.model.backbone.model_name == name
    assert cfg.model.input_size == input_size
    hooks = [hook.type for hook in cfg.custom_hooks]
    distils = method.startswith('infoclip')
    assert ('FrozenTeacherHook' in hooks) is distils
    assert all((key in cfg.model) is distils for key in ('neck', 'loss_ib', 'loss_mi'))


@pytest.mark.parametrize('path', RUNS, ids=name_of)
def test_a_run_trains_on_coco_stuff_and_tests_on_the_set_of_its_name(path):
    cfg = load(path)
    test = cfg.test_dataloader.dataset
    train = cfg.train_dataloader.dataset
    assert (test.type, test.data_root) == DATA_ROOTS[parts(path)[2]]
    assert (train.type, train.data_root) == DATA_ROOTS['coco-stuff']
    assert cfg.train_dataloader.batch_size == 4
    assert cfg.train_cfg.max_iters == 80000


@pytest.mark.parametrize('path', SEGMENTORS, ids=name_of)
def test_every_part_of_a_config_builds(path):
    cfg = load(path)
    assert cfg.custom_imports.imports == ['infoclip_mmseg']
    assert cfg.default_scope == 'mmseg'
    model = build_small(cfg)
    assert model.with_neck is (cfg.model.get('neck') is not None)
    for hook in cfg.custom_hooks:
        HOOKS.build(hook)
    if cfg.train_cfg is not None:
        wrapper = build_optim_wrapper(model, cfg.optim_wrapper)
        kinds = 1 if path.stem.startswith('masqclip') else 2  # of weights that train
        assert len(wrapper.optimizer.param_groups) >= kinds
        Compose(cfg.train_dataloader.dataset.pipeline)
    Compose(cfg.test_dataloader.dataset.pipeline)
    Evaluator(cfg.test_evaluator)


@pytest.mark.parametrize('path', PRETRAINING, ids=name_of)
def test_pretraining_builds(path):
    cfg = load(path)
    cfg.train_dataloader.dataset.length = 1
    assert len(DATASETS.build(cfg.train_dataloader.dataset)) == 1
    stage = path.stem.replace('convnext_', '')
    views = dict(pretrain_1_contrast={8, 16, 32}, pretrain_2_dense={64})[stage]
    if path.parent.name == 'shapes':
        views = dict(pretrain_1_contrast={32, 64, 128}, pretrain_2_dense={128})[stage]
    assert set(cfg.train_dataloader.dataset.views) == views
    build_optim_wrapper(MODELS.build(cfg.model), cfg.optim_wrapper)
    assert [HOOKS.build(hook) for hook in cfg.custom_hooks]


@pytest.mark.parametrize('path', WORLD, ids=name_of)
def test_rows_of_the_composed_world_differ_in_the_method_only(path):
    lines = path.read_text().splitlines()
    assert len(lines) < 20
    tool = 'test' if path.stem == 'zero_shot' else 'train'
    assert lines[1] == f'# python tools/{tool}.py configs/world/{path.name}'
    cfg, base = load(path), load(path.with_name('catseg.py'))
    for key in ('test_dataloader', 'test_evaluator'):
        assert cfg[key] == base[key]
    assert cfg.model.backbone == base.model.backbone
    if path.stem == 'zero_shot':
        return
    for key in ('train_dataloader', 'optim_wrapper', 'param_scheduler', 'train_cfg', 'randomness'):
        assert cfg[key] == base[key]
    assert cfg.model.decode_head == base.model.decode_head
    assert cfg.optim_wrapper.clip_grad['scope'] == [['clip', 'head'], ['lpam']]
    assert (cfg.model.get('neck') is not None, losses_of(cfg)) == {**METHODS, **GUARDED}[path.stem]


@pytest.mark.parametrize('path', WORLD_MASKS, ids=name_of)
def test_mask_models_of_the_composed_world_differ_in_the_method_only(path):
    lines = path.read_text().splitlines()
    assert len(lines) < 20
    assert lines[1] == f'# python tools/train.py configs/world/{path.name}'
    cfg, base = load(path), load(path.with_name('maftp.py'))
    same = ('test_dataloader', 'test_evaluator', 'train_dataloader', 'optim_wrapper', 'train_cfg')
    for key in (*same, 'param_scheduler', 'randomness'):
        assert cfg[key] == base[key]
    assert cfg.model.decode_head.proposals == base.model.decode_head.proposals
    trains = cfg.model.backbone.finetune == 'trunk'
    transfer = cfg.model.decode_head.transfer is not None
    assert (trains, transfer, losses_of(cfg)) == MASK_METHODS[path.stem]
    assert trains is (cfg.model.decode_head.loss_mask_aware is not None)
    taught = any(hook.type == 'FrozenTeacherHook' for hook in cfg.custom_hooks)
    assert taught is bool(losses_of(cfg))


def test_the_rivals_of_table_2_are_there():
    names = {'kl', 'maft', 'maft-plus', 'cost-volume-mi', 'lpam-kl', 'cauchy-schwarz'}
    assert {path.stem.split('_')[0] for path in RIVALS} == names


@pytest.mark.parametrize('path', RIVALS, ids=name_of)
def test_a_rival_differs_from_cat_seg_in_the_distillation_only(path):
    lines = path.read_text().splitlines()
    assert len(lines) < 20
    assert lines[1] == f'# python tools/train.py {path.relative_to(ROOT)}'
    cfg, base = load(path), load(ROOT / 'configs/catseg_vitb16_coco-stuff.py')
    method = path.stem.split('_')[0].replace('-', '_')
    assert (cfg.model.get('neck') is not None, losses_of(cfg)) == {**METHODS, **GUARDED}[method]
    hooks = [hook.type for hook in cfg.custom_hooks]
    assert sorted(hooks) == sorted(['FrozenTeacherHook', *(h.type for h in base.custom_hooks)])
    for key in ('neck', 'loss_distill'):
        cfg.model.pop(key, None)
    cfg.custom_hooks = base.custom_hooks
    assert cfg.to_dict() == base.to_dict()


@pytest.mark.parametrize('path', [p for p in ABLATIONS if p.stem in COMPARISONS], ids=name_of)
def test_comparisons_have_a_row_for_every_method(path, monkeypatch):
    monkeypatch.chdir(ROOT)
    rows = []
    for run in read_ablation(path).runs:
        cfg = load(run.config)
        cfg.merge_from_dict(dict(run.cfg_options))
        if run.train:
            rows.append((cfg.model.get('neck') is not None, losses_of(cfg)))
    assert rows == list(METHODS.values())


MASK_RUNS = sorted(p for p in (ROOT / 'configs/maft-plus').glob('*.py') if 'panoptic' not in p.stem)
MAFT_PLUS = {
    'b': ('convnext_base_w_320', 'laion_aesthetic_s13b_b82k_augreg', 60000),
    'l': ('convnext_large_d_320', 'laion2b_s29b_b131k_ft_soup', 55000),
}
MASK_WORDS = {'coco-stuff': 'coco', 'ade20k': 'ade150', **{k: k for k in ('ade847', 'pc459')}}
MASK_WORDS |= {'pc59': 'pc59', 'voc20': 'voc20'}


def test_every_size_of_maft_plus_has_its_configs():
    expected = {f'maftp_convnext-{size}_{data}' for size in MAFT_PLUS for data in MASK_WORDS}
    assert {path.stem for path in MASK_RUNS} >= expected


@pytest.mark.parametrize('path', MASK_RUNS, ids=name_of)
def test_maft_plus_has_its_recipe(path):
    lines = path.read_text().splitlines()
    tool, rest = (
        ('train', ' --amp') if path.stem.endswith('coco-stuff') else ('test', ' CHECKPOINT')
    )
    assert len(lines) < 20
    assert lines[1] == f'# python tools/{tool}.py {path.relative_to(ROOT)}{rest}'
    _, clip, data = parts(path)
    cfg = load(path)
    name, pretrained, iterations = MAFT_PLUS[clip.removeprefix('convnext-')]
    assert (cfg.model.backbone.model_name, cfg.model.backbone.pretrained) == (name, pretrained)
    [hook] = [h for h in cfg.custom_hooks if h.type == 'VocabularyHook']
    words = dict.fromkeys(('train', 'val'), 'maftp_coco')
    assert hook.vocabularies == {**words, 'test': f'maftp_{MASK_WORDS[data]}'}
    assert (cfg.test_dataloader.dataset.type, cfg.test_dataloader.dataset.data_root) == (
        DATA_ROOTS[data]
    )
    assert cfg.train_dataloader.batch_size == 8
    for loader in (cfg.train_dataloader, cfg.val_dataloader, cfg.test_dataloader):
        [resize] = [step for step in loader.dataset.pipeline if step.type == 'Resize']
        assert resize == dict(type='Resize', scale=(1333, 800), keep_ratio=True)
    if data == 'coco-stuff':
        assert cfg.train_cfg.max_iters == cfg.param_scheduler[0].end == iterations
    model = build_small(cfg)
    groups = build_optim_wrapper(model, cfg.optim_wrapper).optimizer.param_groups
    options = {id(p): g for g in groups for p in g['params']}
    named = dict(model.named_parameters())
    head, trunk = 'decode_head.proposals.', 'backbone.clip.visual.trunk.'
    for parameter, rate, decay in (
        (f'{trunk}stages.0.blocks.0.mlp.fc1.weight', 1e-5, 2e-5),
        (f'{trunk}stages.0.blocks.0.gamma', 1e-5, 2e-5),
        (f'{trunk}stages.0.blocks.0.norm.weight', 1e-5, 0),
        (f'{head}decoder.queries_features.weight', 1e-4, 0),
        (f'{head}decoder.level_embed.weight', 1e-4, 0),
        (f'{head}pixel_decoder.level_embed', 1e-4, 2e-5),
        (f'{head}decoder.decoder.layernorm.weight', 1e-4, 0),
        ('decode_head.void_embedding.weight', 1e-4, 0),
        ('decode_head.in_vocabulary.logit_scale', 1e-4, 2e-5),
    ):
        group = options[id(named[parameter])]
        assert group['lr'] == pytest.approx(rate), parameter
        assert group['weight_decay'] == pytest.approx(decay), parameter


CLEARCLIP_RUNS = {
    # data set, threshold, window, vocabulary, classes
    'voc21': ('PascalVOCDataset', 0.5, 448, 'clearclip_voc21', 21),
    'context60': ('PascalContextDataset', 0.15, 448, 'clearclip_context60', 60),
    'coco_object': ('COCOObjectDataset', 0.4, 448, None, 81),
    'voc20': ('PascalVOC20Dataset', 0.0, 448, 'clearclip_voc20', 20),
    'cityscapes': ('CityscapesDataset', 0.0, 224, 'clearclip_cityscapes', 19),
    'context59': ('VocabularyDataset', 0.0, 448, None, 59),
    'ade20k': ('ADE20KDataset', 0.0, 448, 'clearclip_ade150', 150),
    'coco-stuff': ('COCOStuffDataset', 0.0, 448, 'clearclip_coco', 171),
}


def test_clearclip_has_its_eight_benchmarks():
    assert {path.stem for path in CLEARCLIP} == {f'clearclip_vitb16_{k}' for k in CLEARCLIP_RUNS}


@pytest.mark.parametrize('path', CLEARCLIP, ids=name_of)
def test_clearclip_evaluates_as_published(path):
    lines = path.read_text().splitlines()
    assert len(lines) < 20
    assert lines[1] == f'# python tools/test.py configs/clearclip/{path.name}'
    dataset, threshold, window, vocabulary, classes = CLEARCLIP_RUNS[path.stem.split('_', 2)[2]]
    cfg = load(path)
    assert cfg.test_dataloader.dataset.type == dataset
    expected = dict(type='ZeroShotHead', scale=50.0, threshold=threshold, background=0)
    assert cfg.model.decode_head == expected
    expected = dict(mode='windows', window=window, stride=224)
    assert cfg.model.test_cfg == expected
    assert cfg.model.backbone.dense_mode == 'clearclip'
    assert (cfg.model.templates, cfg.model.synonyms) == ('imagenet', 'max')
    (hook,) = cfg.custom_hooks
    assert (hook.get('vocabularies') or {}).get('test') == vocabulary
    kind = DATASETS.get(dataset)
    names = load_vocabulary(
        vocabulary or cfg.test_dataloader.dataset.get('vocabulary', 'clearclip_coco_object')
    )
    assert len(names) == classes
    own = kind.METAINFO.get('classes')
    assert not own or len(own) == classes
    # A background that is thresholded is label 0.
    assert (threshold > 0) is (names[0] == 'background')


@pytest.mark.parametrize(
    ('size', 'expected'),
    [((375, 500), (448, 597)), ((1024, 2048), (448, 896)), ((50, 500), (205, 2048))],
)
def test_clearclip_resizes_the_shortest_side(tmp_path, size, expected):
    cfg = load(ROOT / 'configs/clearclip/clearclip_vitb16_voc21.py')
    Image.new('RGB', size[::-1]).save(tmp_path / 'a.jpg')
    steps = [step for step in cfg.test_pipeline if step.type in ('LoadImageFromFile', 'Resize')]
    assert Compose(steps)(dict(img_path=str(tmp_path / 'a.jpg')))['img'].shape[:2] == expected


def test_readings_of_the_composed_world_differ_in_the_dense_mode_only(monkeypatch):
    monkeypatch.chdir(ROOT)
    path = ROOT / 'configs/world/ablation_dense_modes.py'
    assert f'# python tools/ablation.py {path.relative_to(ROOT)}' in path.read_text()
    jobs = plan_jobs(read_ablation(path))
    modes = [job.config.model.backbone.dense_mode for job in jobs]
    own = set(DENSE_MODES) - {'declip'}  # which is the reading of a CLIP trained for it
    assert set(modes) == own and len(modes) == len(own)
    for job in jobs:
        assert job.seed is None and job.run.name == job.config.model.backbone.dense_mode
        job.config.model.backbone.dense_mode = 'catseg'
        assert job.config.model == jobs[0].config.model


@pytest.mark.parametrize('path', TRAINED_ABLATIONS, ids=name_of)
def test_rows_of_an_ablation_share_everything_but_the_method(path, monkeypatch):
    monkeypatch.chdir(ROOT)
    ablation = read_ablation(path)
    jobs = plan_jobs(ablation)
    command = f'# python tools/ablation.py {path.relative_to(ROOT)}'
    assert command in path.read_text()
    assert ablation.baseline == 'CAT-Seg'
    assert len({len(list(job.tests)) for job in jobs}) == 1
    trained = [job.config for job in jobs if job.run.train]
    assert len(trained) == len(ablation.seeds) * sum(run.train for run in ablation.runs)
    for cfg in trained:
        for key in ('optim_wrapper', 'param_scheduler', 'train_cfg'):
            assert cfg[key] == trained[0][key]
        assert cfg.train_dataloader.dataset == trained[0].train_dataloader.dataset
        head = {k: v for k, v in cfg.model.decode_head.items() if k not in SELECTION}
        assert head == trained[0].model.decode_head
    if path.parent.name != 'world':
        return
    heads = {
        test: {job.tests[test].model.decode_head.type for job in jobs} for test in jobs[0].tests
    }
    assert heads['tuned CLIP alone'] == {'CosineHead'}
    assert 'CATSegHead' in heads['joint']


def test_rows_of_the_mask_models_share_everything_but_the_method(monkeypatch):
    monkeypatch.chdir(ROOT)
    ablation = read_ablation(ROOT / 'configs/world/ablation_masks.py')
    assert ablation.baseline == 'FC-CLIP' and 'PQ' in ablation.figures
    jobs = plan_jobs(ablation)
    trained = [job.config for job in jobs if job.run.train]
    assert len(trained) == 6 * len(ablation.seeds)
    for cfg in trained:
        for key in ('optim_wrapper', 'param_scheduler', 'train_cfg', 'train_dataloader'):
            assert cfg[key] == trained[0][key]
        for key in ('proposals', 'loss_masks'):
            assert cfg.model.decode_head[key] == trained[0].model.decode_head[key]
    parts = {
        job.run.name: (
            (job.config.model.decode_head.get('transfer') or {}).get('tokens', 'published'),
            job.config.model.decode_head.get('transfer') is not None,
            bool(job.config.model.loss_distill),
            job.config.model.get('loss_mi') is not None,
        )
        for job in jobs
    }
    assert parts == {
        'zero-shot': ('published', False, False, False),
        'FC-CLIP': ('published', False, False, False),
        'MAFT+': ('published', True, True, False),
        'MAFT+, tokens at positions': ('positions', True, True, False),
        'MAFT+ without RC': ('published', True, False, False),
        'MAFT+ without CDT': ('published', False, True, False),
        "MAFT+ with InfoCLIP's losses": ('published', True, False, True),
    }


@pytest.mark.parametrize('path', STUDY, ids=name_of)
def test_rows_of_the_study_share_data_head_and_schedule(path, monkeypatch):
    monkeypatch.chdir(ROOT)
    ablation = read_ablation(path)
    jobs = plan_jobs(ablation)
    assert ablation.baseline == 'CAT-Seg' and ablation.seeds == (0, 1, 2, 3, 4)
    trained = [job for job in jobs if job.run.train]
    base = next(job.config for job in trained if job.run.name == 'CAT-Seg')
    own_rate, own_clip = set(), set()
    for job in trained:
        cfg = job.config
        assert cfg.train_dataloader == base.train_dataloader
        if 'iterations' not in job.run.name:
            assert cfg.train_cfg == base.train_cfg
            assert cfg.param_scheduler == base.param_scheduler
        assert cfg.model.decode_head == base.model.decode_head
        rates = cfg.optim_wrapper.paramwise_cfg != base.optim_wrapper.paramwise_cfg
        clips = cfg.optim_wrapper.clip_grad != base.optim_wrapper.clip_grad
        own_rate |= {job.run.name} if rates else set()
        own_clip |= {job.run.name} if clips else set()
        if losses_of(cfg):
            assert 'FrozenTeacherHook' in [hook.type for hook in cfg.custom_hooks]
    assert all(name.startswith('CLIP at') for name in own_rate)
    assert all('clip' in name for name in own_clip)


def test_words_of_the_study_are_those_of_the_world():
    spec, folder = WorldSpec(), ROOT / 'configs/world/words'
    assert load_vocabulary(folder / 'all_30.txt') == list(spec.classes)
    assert load_vocabulary(folder / 'other_150.txt') == list(distractor_names(spec, 150))


@pytest.mark.parametrize('path', RUNS, ids=name_of)
def test_pipelines_for_inference_and_augmentation_build(path):
    cfg = load(path)
    assert cfg.test_pipeline == cfg.test_dataloader.dataset.pipeline
    Compose(cfg.test_pipeline)
    Compose(cfg.tta_pipeline)
    assert cfg.tta_model.type == 'OpenVocabTTAModel'


def test_learning_rates_and_weight_decay_of_the_recipe():
    cfg = load(ROOT / 'configs/infoclip_vitb16_coco-stuff.py')
    model = build_small(cfg)
    optimizer = build_optim_wrapper(model, cfg.optim_wrapper).optimizer
    options = {id(p): group for group in optimizer.param_groups for p in group['params']}
    trained = {n: options[id(p)] for n, p in model.named_parameters() if p.requires_grad}
    assert {name.split('.')[0] for name in trained} == {'backbone', 'decode_head', 'neck'}
    for name, option in trained.items():
        factor = 0.01 if name.startswith('backbone.') else 1.0
        assert option['lr'] == pytest.approx(2e-4 * factor), name
        assert option['weight_decay'] == (0.0 if 'norm' in name else 1e-4), name
    assert any('norm' in name for name in trained)


def test_training_samples_are_384_crops(tmp_path):
    cfg = load(ROOT / 'configs/infoclip_vitb16_coco-stuff.py')
    rng = np.random.default_rng(0)
    sizes = {'tall': (900, 60), 'wide': (48, 700), 'large': (640, 480)}
    for name, size in sizes.items():
        image = rng.integers(0, 255, (*size, 3), dtype=np.uint8)
        Image.fromarray(image).save(tmp_path / f'{name}.jpg')
        label = rng.integers(0, 171, size, dtype=np.uint8)
        Image.fromarray(label).save(tmp_path / f'{name}_labelTrainIds.png')
    dataset_cfg = cfg.train_dataloader.dataset
    dataset_cfg.update(data_root=str(tmp_path), data_prefix=dict(img_path='', seg_map_path=''))
    dataset = DATASETS.build(dataset_cfg)
    assert len(dataset) == len(sizes)
    for sample in dataset:
        assert sample['inputs'].shape == (3, 384, 384)
        assert sample['data_samples'].gt_sem_seg.shape == (384, 384)


def test_evaluation_resizes_the_image_but_not_the_labels(tmp_path):
    cfg = load(ROOT / 'configs/infoclip_vitb16_ade20k.py')
    Image.new('RGB', (100, 50)).save(tmp_path / 'a.jpg')
    label = np.zeros((50, 100), dtype=np.uint8)
    label[0], label[1], label[2] = 1, 150, 255
    Image.fromarray(label).save(tmp_path / 'a.png')
    dataset_cfg = cfg.test_dataloader.dataset
    dataset_cfg.update(data_root=str(tmp_path), data_prefix=dict(img_path='', seg_map_path=''))
    sample = DATASETS.build(dataset_cfg)[0]
    assert sample['inputs'].shape == (3, 640, 1280)
    drawn = sample['data_samples'].gt_sem_seg.data[0].numpy()
    assert drawn.shape == (50, 100)
    assert [drawn[row, 0] for row in range(4)] == [0, 149, 255, 255]


def test_voc20_ignores_the_background(tmp_path):
    cfg = load(ROOT / 'configs/infoclip_vitb16_voc20.py')
    for folder in ('JPEGImages', 'SegmentationClass', 'ImageSets/Segmentation'):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / 'ImageSets/Segmentation/val.txt').write_text('a\n')
    Image.new('RGB', (64, 64)).save(tmp_path / 'JPEGImages/a.jpg')
    label = np.zeros((64, 64), dtype=np.uint8)
    label[1], label[2], label[3] = 1, 20, 255
    Image.fromarray(label).save(tmp_path / 'SegmentationClass/a.png')
    dataset_cfg = cfg.test_dataloader.dataset
    dataset_cfg.data_root = str(tmp_path)
    dataset = DATASETS.build(dataset_cfg)
    assert len(dataset.metainfo['classes']) == len(dataset.metainfo['palette']) == 20
    assert dataset.metainfo['palette'][0] == [128, 0, 0]
    drawn = dataset[0]['data_samples'].gt_sem_seg.data[0].numpy()
    assert [drawn[row, 0] for row in range(4)] == [255, 0, 19, 255]
