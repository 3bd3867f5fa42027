"""The model of a measurement, from a config: random weights, made-up vocabulary, teacher."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any

import torch
from mmengine.config import Config, ConfigDict
from mmengine.optim import build_optim_wrapper
from mmengine.registry import init_default_scope
from mmseg.registry import MODELS

from infoclip_mmseg.engine.amp import enable_amp
from infoclip_mmseg.experiments.timing.inputs import (
    class_names,
    random_images,
    random_labels,
    test_batch,
    training_batch,
)
from infoclip_mmseg.experiments.timing.settings import BenchmarkError, Setting, SkippedError
from infoclip_mmseg.models.distillation.teacher import FrozenTeacher
from infoclip_mmseg.models.segmentors.open_vocab import OpenVocabSegmentor

PHOTO = (480, 640)
"""Height and width of the image file that inference stands for, as most of COCO's."""
SHORT_SIDE = 640
"""Shortest side to which the configs' test pipelines resize it before the model gets it."""


class Built:
    """Config and setting of a measurement, and what is built of them.

    Args:
        setting: The measurement.
        working_size: Whether :attr:`Setting.image_size` is the working size of sliding windows,
            instead of the side of the views that CLIP gets.

    Raises:
        BenchmarkError: The config can't be used.
    """

    def __init__(self, setting: Setting, working_size: bool = False) -> None:
        self.setting = setting
        self.cfg = read_config(setting)
        if setting.image_size is not None:
            set_image_size(self.cfg.model, setting.image_size, working_size)
        init_default_scope(self.cfg.get('default_scope', 'mmseg'))

    def model(self, distill: bool = True) -> Any:
        """The segmentor with its vocabulary, on its device.

        Args:
            distill: False leaves out LPAM and the losses between teacher and student.
        """
        torch.manual_seed(0)
        config = dict(self.cfg.model)
        if not distill:
            config.update({key: None for key in OpenVocabSegmentor.TRAINING_KEYS if key in config})
        try:
            model = MODELS.build(config).to(self.setting.device)
        except (TypeError, KeyError, ValueError, AttributeError) as error:
            raise BenchmarkError(f'no model from {self.setting.config!r}: {error}') from error
        check_view_size(view_size(model), model.backbone.patch_size)
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

    @property
    def distils(self) -> bool:
        """Whether the model learns from a teacher."""
        return any(self.cfg.model.get(key) for key in OpenVocabSegmentor.TRAINING_KEYS)

    def optimizer(self, model: Any) -> Any:
        """The config's optimizer wrapper, in the setting's precision.

        Raises:
            SkippedError: The config is not for training.
        """
        if self.cfg.get('optim_wrapper') is None:
            raise SkippedError('the config has no optim_wrapper: it is not for training')
        if self.setting.dtype == 'bf16':
            enable_amp(self.cfg, 'bf16')
        return build_optim_wrapper(model, self.cfg.optim_wrapper)

    def precision(self) -> AbstractContextManager:
        """Autocast, where the setting asks for it."""
        kind = torch.device(self.setting.device).type
        return torch.autocast(kind, torch.bfloat16, enabled=self.setting.dtype == 'bf16')

    def crops(self, model: Any) -> dict[str, list]:
        """A training batch at the crop size of the config."""
        size = tuple(model.data_preprocessor.size or view_size(model))
        images = random_images(self.setting.batch_size, size)
        labels = random_labels(self.setting.batch_size, size, self.setting.num_classes)
        return training_batch(images, labels)

    def photos(self) -> dict[str, list]:
        """A test batch, resized as the configs' test pipelines do."""
        original = PHOTO if self.setting.image_size is None else (self.setting.image_size,) * 2
        scale = SHORT_SIDE / min(original) if self.setting.image_size is None else 1
        size = (round(original[0] * scale), round(original[1] * scale))
        return test_batch(random_images(self.setting.batch_size, size), original)

    def views(self, model: Any) -> torch.Tensor:
        """Normalised views (B, 3, h, w) of the size that CLIP gets, on the device."""
        size = view_size(model)
        batch = test_batch(random_images(self.setting.batch_size, size), size)
        return model.data_preprocessor(batch, False)['inputs']


def view_size(model: Any) -> tuple[int, int]:
    """Height and width in pixels of the views that CLIP gets."""
    height, width = model.input_size
    return int(height), int(width)


def check_view_size(size: tuple[int, int], patch: tuple[int, int]) -> None:
    """Raise a BenchmarkError for views that are not whole patches."""
    if any(side % step for side, step in zip(size, patch)):
        near = max(round(size[0] / patch[0]), 1) * patch[0]
        raise BenchmarkError(
            f'views of {size[0]} x {size[1]} pixels are no multiple of the patch of {patch[0]} x '
            f'{patch[1]}; the nearest image size is {near}'
        )


def read_config(setting: Setting) -> Config:
    """The config of a measurement with its overrides and random weights.

    Raises:
        BenchmarkError: It can't be read, or holds no segmentor of this package.
    """
    try:
        cfg = Config.fromfile(setting.config)
        cfg.merge_from_dict(ConfigDict(setting.cfg_options))
    except (OSError, SyntaxError, KeyError, TypeError, AttributeError, ImportError) as error:
        raise BenchmarkError(f'config {setting.config!r} can not be used: {error}') from error
    if cfg.get('model', {}).get('type') != 'OpenVocabSegmentor':
        raise BenchmarkError(
            f'config {setting.config!r} has no model of type OpenVocabSegmentor; name a config '
            'such as configs/infoclip_vitb16_coco-stuff.py'
        )
    cfg.model.backbone.pretrained = None
    return cfg


def set_image_size(model: dict, side: int, working_size: bool) -> None:
    """Set the working size of sliding windows, or else the size of crops and views, in place."""
    test_cfg = dict(model.get('test_cfg') or {})
    if working_size and test_cfg.get('mode', 'slide') == 'slide':
        model['test_cfg'] = {**test_cfg, 'size': (side, side)}
        return
    model['input_size'] = side
    model['data_preprocessor']['size'] = (side, side)
