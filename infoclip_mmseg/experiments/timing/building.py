"""The model of a measurement, from a config: random weights, made-up vocabulary, teacher."""

from __future__ import annotations

import copy
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import torch
from mmengine.config import Config, ConfigDict
from mmengine.optim import build_optim_wrapper
from mmengine.registry import init_default_scope
from mmseg.registry import MODELS
from torch import Tensor

from infoclip_mmseg.models import FrozenTeacher

from .inputs import class_names, random_images, random_labels, test_batch, training_batch
from .measure import Clock, Task
from .settings import Setting, SkippedError, TimingError

TRAINING_KEYS = ('neck', 'loss_ib', 'loss_mi', 'loss_distill')
"""Keys of a model's config, any of which asks for a teacher."""
PHOTO = (480, 640)
"""Height and width of the image file that inference stands for, as most of COCO's."""
RESIZED = (640, 853)
"""What the configs' test pipelines make of it before the model gets it."""


class Built:
    """Config and setting of a measurement, and what is built of them.

    Args:
        setting: The measurement.

    Raises:
        TimingError: The config can't be read.
    """

    def __init__(self, setting: Setting) -> None:
        self.setting = setting
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

        Args:
            distill: False leaves out LPAM and the losses between teacher and student.
            working_size: Whether :attr:`Setting.image_size` is the working size of sliding windows,
                instead of the side of the crops and of the views that CLIP gets.

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
        if self.setting.image_size is not None:
            _set_image_size(config, self.setting.image_size, working_size)
        try:
            model = MODELS.build(config).to(self.setting.device)
        except (TypeError, KeyError, ValueError, AttributeError) as error:
            raise TimingError(f'no model from {name!r}: {error}') from error
        _check_view_size(view_size(model), model.backbone.patch_size)
        model.set_vocabulary(class_names(self.setting.num_classes))
        return model

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
        return model

    def optimizer(self, model: Any) -> Any:
        """The config's optimizer wrapper, in the setting's precision.

        Raises:
            SkippedError: The config is not for training.
        """
        wrapper = self.cfg.get('optim_wrapper')
        if wrapper is None:
            raise SkippedError('the config has no optim_wrapper: it is not for training')
        if self.setting.dtype == 'bf16':
            wrapper.type = 'BFloat16OptimWrapper'
        return build_optim_wrapper(model, wrapper)

    def precision(self) -> AbstractContextManager:
        """Autocast, where the setting asks for it."""
        kind = torch.device(self.setting.device).type
        return torch.autocast(kind, torch.bfloat16, enabled=self.setting.dtype == 'bf16')

    def predicting(self, clock: Clock, section: str, function: Callable[[], Any]) -> Task:
        """A task of calls without gradients."""

        def call() -> None:
            with torch.no_grad(), self.precision(), clock(section):
                function()

        return Task(call, self.setting.batch_size)

    def crops(self, model: Any) -> dict[str, list]:
        """A training batch at the crop size of the config."""
        size = tuple(model.data_preprocessor.size or view_size(model))
        images = random_images(self.setting.batch_size, size)
        labels = random_labels(self.setting.batch_size, size, self.setting.num_classes)
        return training_batch(images, labels)

    def photos(self) -> dict[str, list]:
        """A test batch, resized as the configs' test pipelines do."""
        side = self.setting.image_size
        original, size = (PHOTO, RESIZED) if side is None else ((side, side), (side, side))
        return test_batch(random_images(self.setting.batch_size, size), original)

    def views(self, model: Any) -> Tensor:
        """Normalised views (B, 3, h, w) of the size that CLIP gets, on the device."""
        size = view_size(model)
        batch = test_batch(random_images(self.setting.batch_size, size), size)
        return model.data_preprocessor(batch, False)['inputs']


def view_size(model: Any) -> tuple[int, int]:
    """Height and width in pixels of the views that CLIP gets."""
    height, width = model.input_size
    return int(height), int(width)


def _check_view_size(size: tuple[int, int], patch: tuple[int, int]) -> None:
    if any(side % step for side, step in zip(size, patch)):
        near = max(round(size[0] / patch[0]), 1) * patch[0]
        raise TimingError(
            f'views of {size[0]} x {size[1]} pixels are no multiple of the patch of {patch[0]} x '
            f'{patch[1]}; the nearest image size is {near}'
        )


def _set_image_size(model: dict, side: int, working_size: bool) -> None:
    """Set the working size of sliding windows, or else the size of crops and views, in place."""
    test_cfg = dict(model.get('test_cfg') or {})
    if working_size and test_cfg.get('mode', 'slide') == 'slide':
        model['test_cfg'] = {**test_cfg, 'size': (side, side)}
        return
    model['input_size'] = side
    model['data_preprocessor']['size'] = (side, side)
