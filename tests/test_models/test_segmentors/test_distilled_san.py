"""DistilledSegmentor on mmseg's SAN; needs an mmcv with compiled operators (the upstream stack)."""

from __future__ import annotations

import copy
import importlib.util
from pathlib import Path

import mmseg
import open_clip
import pytest
import torch
from mmengine.config import Config, ConfigDict
from mmengine.structures import PixelData
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample
from safetensors.torch import save_file

try:
    import mmcv.ops  # noqa: F401
except ImportError:
    pytest.skip(
        "mmcv has no compiled operators, and SAN's head needs point_sample",
        allow_module_level=True,
    )

ROOT = Path(__file__).resolve().parents[3]
TINY = dict(
    embed_dim=32,
    quick_gelu=True,
    vision_cfg=dict(image_size=32, layers=3, width=64, head_width=32, patch_size=8),
    text_cfg=dict(context_length=77, vocab_size=49408, width=64, heads=2, layers=2),
)
FULL = 'ViT-B-16-quickgelu'
SIZES = dict(tiny=96, full=320)


def to_san(state: dict, layers: int) -> dict:
    """mmseg's own converter: a CLIP whose last ``layers`` image blocks recognise SAN's masks."""
    path = Path(mmseg.__file__).parent / '.mim/tools/model_converters/clip2mmseg.py'
    spec = importlib.util.spec_from_file_location('clip2mmseg', path)
    converter = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(converter)
    return converter.convert_tensor(converter.convert_key_name(state, layers))


@pytest.fixture(scope='module')
def clip_files(tmp_path_factory) -> dict[str, tuple[Path, Path]]:
    """By size: a CLIP with random weights, and the same in mmseg's layout for SAN."""
    files = {}
    for size, kept in (('tiny', 2), ('full', 9)):
        torch.manual_seed(0)
        config = TINY if size == 'tiny' else open_clip.get_model_config(FULL)
        state = open_clip.CLIP(**copy.deepcopy(config)).state_dict()
        folder = tmp_path_factory.mktemp(size)
        save_file(state, str(folder / 'clip.safetensors'))
        torch.save(to_san(state, kept), folder / 'san.pth')
        files[size] = (folder / 'clip.safetensors', folder / 'san.pth')
    return files


def shrink(student: ConfigDict) -> None:
    """SAN's config at toy size."""
    student.image_encoder.update(
        img_size=(32, 32), patch_size=8, embed_dims=64, num_layers=2, num_heads=2, out_indices=(1,)
    )
    student.text_encoder.update(embed_dims=64, num_layers=2, num_heads=2, output_dims=32)
    student.decode_head.deep_supervision_idxs = [1]
    student.decode_head.san_cfg.update(
        clip_channels=64, embed_dims=32, num_queries=5, fusion_index=[0, 1]
    )
    student.decode_head.san_cfg.cfg_encoder.update(num_encode_layer=2, num_heads=2)
    student.decode_head.san_cfg.cfg_decoder.update(num_heads=2, embed_channels=32, mlp_channels=32)
    student.decode_head.maskgen_cfg.update(
        sos_token_num=5, num_layers=1, embed_dims=64, num_heads=2, out_dims=32
    )
    student.decode_head.train_cfg.num_points = 200


def model_config(clip_files, size: str) -> ConfigDict:
    """The model of configs/compose for ADE20K's classes, at a size."""
    clip, san = clip_files[size]
    model = Config.fromfile(ROOT / 'configs/compose/infoclip_san_vitb16_coco-stuff.py').model
    student, side = model.student, SIZES[size]
    student.pretrained = str(san)
    student.data_preprocessor.update(size_divisor=None, size=(side, side))
    student.text_encoder.update(dataset_name='ade', templates=['A photo of a {} in the scene'])
    student.decode_head.num_classes = 150
    student.decode_head.loss_decode[0].class_weight = [1.0] * 150 + [0.1]
    if size == 'tiny':
        shrink(student)
        model.distillation.teacher.model_name = TINY
    model.distillation.teacher.pretrained = str(clip)
    model.distillation.input_size = side // 2
    return model


def train(make_runner, model: ConfigDict, size: str, **changes):
    """Five iterations on the real images."""
    pipeline = [
        dict(type='LoadImageFromFile'),
        dict(type='LoadAnnotations'),
        dict(type='Resize', scale=(SIZES[size], SIZES[size]), keep_ratio=False),
        dict(type='PackSegInputs'),
    ]
    dataset = dict(
        type='ADE20KDataset',
        data_root=str(ROOT / 'tests/data/ade'),
        data_prefix=dict(img_path='images/validation', seg_map_path='annotations/validation'),
        pipeline=pipeline,
    )
    loader = dict(batch_size=2, num_workers=0, dataset=dataset)
    loader['sampler'] = dict(type='InfiniteSampler', shuffle=True)
    runner = make_runner(copy.deepcopy(model), max_iters=5, train_dataloader=loader, **changes)
    runner.train()
    return runner


def plain_san(model: ConfigDict):
    return MODELS.build(copy.deepcopy(model.student))


@pytest.mark.parametrize('size', ['tiny', pytest.param('full', marks=pytest.mark.slow)])
def test_san_trains_with_infoclip_and_loads_without_it(make_runner, clip_files, tmp_path, size):
    model = model_config(clip_files, size)
    runner = train(make_runner, model, size)
    assert len(runner.recorder.losses) == 5
    for losses in runner.recorder.losses:
        assert {'loss_ib', 'loss_mi', 'decode.loss_cls_ce', 'decode.d7.loss_cls_ce'} <= {
            key.replace('.d1.', '.d7.') for key in losses
        }
        assert all(torch.isfinite(torch.tensor(value)) for value in losses.values())
    path = tmp_path / 'work' / 'iter_5.pth'
    if not path.is_file():
        runner.save_checkpoint(str(tmp_path / 'work'), 'iter_5.pth', by_epoch=False)
    checkpoint = torch.load(path, map_location='cpu')
    plain = plain_san(model)
    result = plain.load_state_dict(checkpoint['state_dict'], strict=False)
    assert not result.missing_keys and not result.unexpected_keys

    # The same prediction on each of the real images.
    distilled, plain = runner.model.eval(), plain.eval()
    for sample in runner.train_dataloader.dataset:
        data = dict(inputs=[sample['inputs']], data_samples=[sample['data_samples']])
        expected, got = (
            each.test_step(copy.deepcopy(data))[0].seg_logits.data for each in (distilled, plain)
        )
        assert torch.equal(got, expected)


def test_losses_train_the_side_adapter(clip_files):
    torch.manual_seed(0)
    model = MODELS.build(model_config(clip_files, 'tiny'))
    model.init_weights()
    model.set_vocabulary([f'thing {i}' for i in range(150)])
    model.distiller.attach_teacher()
    labels = torch.randint(0, 150, (2, 1, 96, 96))
    samples = [SegDataSample(gt_sem_seg=PixelData(data=label)) for label in labels]
    losses = model.train().loss(torch.randn(2, 3, 96, 96), samples)
    (losses['loss_ib'] + losses['loss_mi']).backward()
    adapter = model.decode_head.side_adapter_network
    touched = [n for n, p in adapter.named_parameters() if p.grad is not None]
    assert {'query_embed', 'pos_embed', 'mask_decoder.attn_mlp.layers.0.weight'} <= set(touched)
    frozen = [p for p in model.parameters() if not p.requires_grad]
    assert frozen and all(p.grad is None for p in frozen)


def test_student_and_teacher_embed_words_alike(clip_files):
    config = model_config(clip_files, 'tiny')
    model = MODELS.build(config)
    model.init_weights()
    names = ['wall', 'building', 'sky']
    model.set_vocabulary(names)
    model.text_encoder.dataset_name, model.text_encoder.vocabulary = None, names
    student = torch.nn.functional.normalize(model.text_encoder()[:3], dim=-1)
    teacher = model.distiller.attach_teacher().encoder.embed_prompts(model.vocabulary.prompts)[:, 0]
    torch.testing.assert_close(student, teacher, rtol=1e-4, atol=1e-4)
