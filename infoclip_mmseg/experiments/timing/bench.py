"""A measurement, and what it needs: a model with random weights, made-up names and images.

Legend: B images, T classes, P prompts a class, C channels, h and w pixels.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from itertools import islice, permutations
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from mmengine.config import Config, ConfigDict
from mmengine.registry import init_default_scope
from mmengine.structures import PixelData
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample
from torch import Tensor

from infoclip_mmseg.models import FrozenTeacher
from infoclip_mmseg.models.distillation.distiller import teacher_dtype

from .measure import Clock

DTYPES = ('fp32', 'bf16')
LISTS = Path(__file__).resolve().parents[2] / 'datasets' / 'vocabulary_lists'
"""Of the tree that measures, so that all sides get the same names."""
ORDER = ('coco', 'ade847', 'pc459')
ADJECTIVES = (
    *('old', 'small', 'red', 'wooden', 'white', 'wet', 'striped', 'broken', 'shiny', 'dark'),
    *('large', 'new', 'blue', 'metal', 'round', 'dusty', 'folded', 'green', 'narrow', 'plastic'),
)
BLOCK = 32
"""Side of a block of one label, in pixels."""
IGNORED = 255
TRAINING_KEYS = ('neck', 'loss_ib', 'loss_mi', 'loss_distill', 'guard_words')
"""Keys of a model's config, any of which asks for a teacher."""
PHOTO = (480, 640)
"""Height and width of the image file that inference stands for, as most of COCO's."""
RESIZED = (640, 853)
"""What the configs' test pipelines make of it before the model gets it."""
Size = tuple[int, int]
Call = Callable[[], object]


class TimingError(ValueError):
    """Something that the user can mend; the message says how."""


class SkippedError(Exception):
    """A part that can't be measured here; the message says why."""


@dataclass(frozen=True)
class Setting:
    """One measurement; goes to the measuring process as JSON.

    `image_size` is the side in pixels, or None for the sizes of the config: in training of the
    crops and of the views that CLIP gets, in inference of the image and of the working size.
    `max_memory` is in bytes. The other fields are the options of tools/benchmark.py.
    """

    part: str
    config: str
    cfg_options: dict[str, Any] = field(default_factory=dict)
    batch_size: int = 1
    num_classes: int = 171
    image_size: int | None = None
    dtype: str = 'fp32'
    device: str = 'cpu'
    threads: int | None = None
    warmup: int = 1
    repeats: int = 3
    max_memory: int | None = None
    images: int = 200
    workers: int = 1


class Bench:
    """Config and clock of a measurement, and what is built for it.

    Subjects set `images`, those of a call where the work is by image, and plain values for the
    report in `info`.

    Raises:
        TimingError: The config can't be read.
    """

    def __init__(self, setting: Setting) -> None:
        self.setting = setting
        self.clock = Clock(setting.device)
        self.images = 0
        self.info: dict[str, Any] = {}
        try:
            self.cfg = Config.fromfile(setting.config)
            self.cfg.merge_from_dict(ConfigDict(setting.cfg_options))
        except (OSError, SyntaxError, KeyError, TypeError, AttributeError, ImportError) as error:
            raise TimingError(f'config {setting.config!r} can not be used: {error}') from error
        init_default_scope(self.cfg.get('default_scope', 'mmseg'))

    @property
    def distils(self) -> bool:
        """Whether the model learns from a teacher."""
        return any(self.cfg.get('model', {}).get(key) for key in TRAINING_KEYS)

    def model(self, distill: bool = True, working_size: bool = False) -> Any:
        """The segmentor with its vocabulary, on its device.

        ``distill=False`` leaves out LPAM and the losses between teacher and student. With
        ``working_size`` the setting's size is that of sliding windows, else of crops and views.

        Raises:
            TimingError: The config holds no segmentor of this package, or one that can't be built.
        """
        torch.manual_seed(0)
        config, name = copy.deepcopy(self.cfg.get('model', {})), self.setting.config
        if config.get('type') != 'OpenVocabSegmentor':
            raise TimingError(
                f'config {name!r} has no model of type OpenVocabSegmentor; name a config such as '
                'configs/infoclip_vitb16_coco-stuff.py'
            )
        config.backbone.pretrained = None
        if not distill:
            config.update({key: None for key in TRAINING_KEYS if key in config})
        if side := self.setting.image_size:
            test_cfg = config.get('test_cfg') or {}
            if working_size and test_cfg.get('mode', 'slide') == 'slide':
                config.test_cfg = {**test_cfg, 'size': side}
            else:
                config.input_size = side
                config.data_preprocessor.size = (side, side)
                config.data_preprocessor.pop('size_divisor', None)  # one of both
        try:
            model = MODELS.build(config).to(self.setting.device)
        except (TypeError, KeyError, ValueError, AttributeError) as error:
            raise TimingError(f'no model from {name!r}: {error}') from error
        (height, width), patch = model.input_size, model.backbone.patch_size
        if height % patch[0] or width % patch[1]:
            near = max(round(height / patch[0]), 1) * patch[0]
            raise TimingError(
                f'views of {height} x {width} pixels are no multiple of the patch of {patch[0]} x '
                f'{patch[1]}; the nearest image size is {near}'
            )
        model.set_vocabulary(class_names(self.setting.num_classes))
        self._compile(model)
        return model

    def _compile(self, model: Any) -> None:
        """As MMEngine's runner does where the config has ``compile``."""
        options = self.cfg.get('compile')
        if options:
            options = {} if options is True else dict(options)
            target = options.pop('target', 'forward')
            setattr(model, target, torch.compile(getattr(model, target), **options))

    def taught_model(self) -> Any:
        """The segmentor with a frozen teacher, as FrozenTeacherHook gives it.

        Raises:
            SkippedError: The config has no use for a teacher.
        """
        if not self.distils:
            raise SkippedError('the config has neither neck nor distillation losses')
        model = self.model()
        model.teacher = FrozenTeacher.from_student(model.backbone).to(self.setting.device)
        model.teacher.share_with(model.backbone)
        for hook in self.cfg.get('custom_hooks') or ():
            if hook['type'] == 'FrozenTeacherHook':
                model.teacher.dtype = teacher_dtype(hook.get('dtype'))
        return model

    def precision(self) -> AbstractContextManager:
        """Autocast, where the setting asks for it."""
        kind = torch.device(self.setting.device).type
        return torch.autocast(kind, torch.bfloat16, enabled=self.setting.dtype == 'bf16')

    def predicting(self, section: str, function: Call) -> Call:
        """A timed call by image, without gradients."""
        self.images = self.setting.batch_size

        def call() -> None:
            with torch.no_grad(), self.precision(), self.clock(section):
                function()

        return call

    def differentiating(self, sections: dict[str, tuple[Callable, Sequence[Tensor]]]) -> Call:
        """A timed call of functions, each with the gradients of its sum by some tensors."""

        def call() -> None:
            with self.precision():
                for section, (function, inputs) in sections.items():
                    self.clock.forward_backward(section, function, inputs)

        return call

    def crops(self, model: Any) -> dict[str, list]:
        """A training batch at the crop size of the config."""
        size = tuple(model.data_preprocessor.size or model.input_size)
        batch = make_batch(self.setting.batch_size, size, size)
        labels = random_labels(self.setting.batch_size, size, self.setting.num_classes)
        for sample, label in zip(batch['data_samples'], labels):
            sample.gt_sem_seg = PixelData(data=label[None])
        return batch

    def photos(self) -> dict[str, list]:
        """A test batch, resized as the configs' test pipelines do."""
        side = self.setting.image_size
        original, size = (PHOTO, RESIZED) if side is None else ((side, side), (side, side))
        return make_batch(self.setting.batch_size, size, original)

    def views(self, model: Any) -> Tensor:
        """Normalised views (B, 3, h, w) of the size that CLIP gets, on the device."""
        batch = make_batch(self.setting.batch_size, model.input_size, model.input_size)
        return model.data_preprocessor(batch, False)['inputs']


def class_names(count: int) -> list[str]:
    """Distinct names of real length: those of the benchmarks, then with one or two adjectives.

    Raises:
        TimingError: There are fewer.
    """
    names = list(dict.fromkeys(islice(_every_name(), 2 * max(count, 0))))
    if not 1 <= count <= len(names):
        most = len(set(_every_name()))
        raise TimingError(f'the number of classes must be 1 to {most}, got {count}')
    return names[:count]


def _every_name() -> Iterator[str]:
    lists = (json.loads((LISTS / f'{key}.json').read_text(encoding='utf-8')) for key in ORDER)
    known = dict.fromkeys(name.split(',')[0].strip() for names in lists for name in names)
    for length in range(3):
        for words in permutations(ADJECTIVES, length):
            yield from (' '.join((*words, noun)) for noun in known)


def make_batch(count: int, size: Size, original: Size) -> dict[str, list]:
    """What a test loader gives: images (3, h, w) of noise, of files with the size ``original``."""
    images = torch.randint(256, (count, 3, *size)).to(torch.uint8)
    meta = dict(ori_shape=original, img_shape=size, pad_shape=size)
    samples = [SegDataSample(metainfo=dict(meta)) for _ in images]
    return dict(inputs=list(images), data_samples=samples)


def random_labels(count: int, size: Size, num_classes: int) -> Tensor:
    """Label maps (B, h, w), int64: blocks of one class, a strip at the top without a label."""
    blocks = (count, *(-(-side // BLOCK) for side in size))
    labels = torch.randint(min(num_classes, IGNORED), blocks)
    labels = labels.repeat_interleave(BLOCK, 1).repeat_interleave(BLOCK, 2)[:, : size[0], : size[1]]
    labels[:, : max(size[0] // 48, 1)] = IGNORED
    return labels


def random_text(num_classes: int, prompts: int, channels: int) -> Tensor:
    """Normalised text embeddings (T, P, C) in the place of encoded ones."""
    return F.normalize(torch.randn(num_classes, prompts, channels), dim=-1)
