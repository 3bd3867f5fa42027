"""The frozen pretrained CLIP that guards the image-text alignment, and what compares a student."""

from __future__ import annotations

import copy
import zlib
from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from mmengine.dist import broadcast
from mmseg.registry import MODELS
from torch import Tensor, nn

from infoclip_mmseg.losses.base import Branch, distill
from infoclip_mmseg.models.distillation.guard_words import GuardWords
from infoclip_mmseg.models.text.prompts import PromptSet

if TYPE_CHECKING:
    from infoclip_mmseg.models.backbones.dual_encoder import CLIPDualEncoder, ImageFeatures


DTYPES = {None: None, 'bfloat16': torch.bfloat16, 'float16': torch.float16}


def teacher_dtype(name: str | None) -> torch.dtype | None:
    """The type that a config names for a teacher; a ValueError for another."""
    if name not in DTYPES:
        raise ValueError(f"dtype must be None, 'bfloat16' or 'float16', got {name!r}")
    return DTYPES[name]


class FrozenTeacher:
    """A frozen copy of the student's encoder with the pretrained weights.

    It is not an ``nn.Module``, so that as an attribute of the segmentor it is in no state dict, no
    optimizer and no bucket of a distributed wrapper, and copies of the segmentor share it. It owns
    ``encoder``, which is put into evaluation mode and its gradients turned off.

    With a ``dtype``, such as ``torch.bfloat16``, images are encoded under autocast to it, also
    where the student is not; embeddings of text, which are cached, stay as they are.
    """

    def __init__(self, encoder: CLIPDualEncoder, dtype: torch.dtype | None = None) -> None:
        self.encoder = encoder.eval().requires_grad_(False)
        self.dtype = dtype

    @classmethod
    def from_student(cls, student: CLIPDualEncoder) -> FrozenTeacher:
        """Copy the student's architecture and load the pretrained weights into the copy.

        With ``pretrained=None`` the teacher keeps the weights that the student has at this moment.
        """
        encoder = copy.deepcopy(student)
        encoder.init_weights()
        return cls(encoder)

    @classmethod
    def from_config(cls, config: dict) -> FrozenTeacher:
        """Build a :class:`CLIPDualEncoder` with its pretrained weights; random ones have a seed."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            encoder = MODELS.build({'type': 'CLIPDualEncoder', 'finetune': 'frozen', **config})
        encoder.init_weights()
        return cls(encoder)

    def __deepcopy__(self, memo: dict) -> FrozenTeacher:
        return self

    @torch.no_grad()
    def encode(self, images: Tensor, prompts: PromptSet) -> tuple[ImageFeatures, Tensor]:
        """Image features of normalised images, and text embeddings (T, P, C), these cached."""
        return self._encode_image(images), self.encoder.embed_prompts(prompts)

    def _encode_image(self, images: Tensor) -> ImageFeatures:
        if self.dtype is None:
            return self.encoder.encode_image(images)
        with torch.autocast(images.device.type, self.dtype):
            features = self.encoder.encode_image(images)
        blocks = tuple(block.float() for block in features.blocks)
        return features._replace(
            dense=features.dense.float(), cls=features.cls.float(), blocks=blocks
        )

    def to(self, device: torch.device | str) -> FrozenTeacher:
        """Move to a device."""
        self.encoder.to(device)
        return self

    @torch.no_grad()
    def share_with(self, student: CLIPDualEncoder) -> list[str]:
        """Use the student's memory for equal tensors that it does not train; their names."""
        present = dict(_tensors(self.encoder))
        shared = []
        for name, tensor in _tensors(student):
            if not tensor.requires_grad and torch.equal(tensor, present[name].to(tensor.device)):
                owner, _, leaf = name.rpartition('.')
                setattr(self.encoder.get_submodule(owner), leaf, tensor)
                shared.append(name)
        return shared

    def fingerprint(self) -> str:
        """Checksum of all weights, 8 hexadecimal digits."""
        checksum = 0
        for name, tensor in sorted(_tensors(self.encoder)):
            checksum = zlib.crc32(name.encode(), checksum)
            data = tensor.detach().float().cpu().contiguous().numpy()
            checksum = zlib.crc32(data.tobytes(), checksum)
        return f'{checksum:08x}'


def _tensors(module: nn.Module) -> list[tuple[str, Tensor]]:
    return [*module.named_parameters(), *module.named_buffers()]


class Distiller:
    """Frozen teacher, neck and losses of a student whose encoder is a CLIP.

    A plain object: neck and losses are modules that the student registers under its own names and
    trains, the teacher is in no state dict, no optimizer and no bucket of a distributed wrapper.
    :class:`~infoclip_mmseg.engine.FrozenTeacherHook` attaches the teacher and lets it go.
    :class:`Distillation` is the distiller of a foreign student.

    Args:
        encoder: The student's encoder, of which the teacher is the pretrained state.
        losses: From :func:`~infoclip_mmseg.losses.build_losses`.
        neck: Relates positions to classes, such as :class:`LPAM`, shared by teacher and student;
            None takes plain cosines.
        guard: Words that the relation maps are of; None takes the training classes. Without a
            neck or a loss, which would read them, they are a ValueError.
    """

    teacher: FrozenTeacher | None  # None outside of training

    def __init__(
        self,
        encoder: CLIPDualEncoder | None,
        losses: nn.ModuleList | tuple = (),
        neck: nn.Module | None = None,
        guard: GuardWords | None = None,
    ) -> None:
        self.encoder, self.losses, self.neck, self.guard = encoder, losses, neck, guard
        self.teacher = None
        if guard is not None and not self.needs_teacher:
            raise ValueError(
                'guard_words without a loss between teacher and student guard nothing: set '
                "loss_distill=[dict(type='CauchySchwarzLoss')] and add FrozenTeacherHook to "
                'custom_hooks'
            )

    @property
    def needs_teacher(self) -> bool:
        """Whether there is anything between teacher and student."""
        return self.neck is not None or len(self.losses) > 0

    def alignment_loss(
        self,
        images: Tensor,
        prompts: PromptSet,
        dense: Tensor,
        text: Tensor | None,
        trunk: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """Losses that hold the student to the teacher; a RuntimeError where there is none.

        InfoCLIP compresses the teacher's relation map R_T (Eq. 9) and transfers it to the
        student's, R_S (Eq. 11; paper, section 3); other losses compare what they name. Images
        (B, 3, h, w) are normalised for the teacher; ``dense`` (B, C, H, W) and ``text``, (T, C) or
        (B, T, C), are the student's embeddings, ``trunk`` (B, K, H, W) its last stage, if any.
        """
        if self.teacher is None:
            raise RuntimeError(
                'the model has a neck or a distillation loss but no teacher: add '
                'dict(type="FrozenTeacherHook") to custom_hooks, or set neck, loss_ib, loss_mi and '
                'loss_distill to None to train without one'
            )
        if self.guard is not None:
            prompts = self.guard.prompts(prompts, self.teacher.encoder.tokenizer)
            text = self.student_text(prompts)
        features, teacher_text = self.teacher.encode(images, prompts)
        # One embedding a class: the mean over its prompts.
        stage = None if trunk is None else features.blocks[-1]
        teacher = Branch(features.dense, teacher_text.mean(dim=1), self.neck, stage)
        student = self.student_branch(dense, text, teacher, trunk)
        return distill(teacher, student, self.losses)

    def student_text(self, prompts: PromptSet) -> Tensor | None:
        """The student's embeddings (T, C) of other words; None where it has no text encoder."""
        return None if self.encoder is None else self.encoder.embed_prompts(prompts).mean(dim=1)

    def student_branch(
        self, dense: Tensor, text: Tensor | None, teacher: Branch, trunk: Tensor | None = None
    ) -> Branch:
        """The student beside the teacher, whose grid and width it has."""
        return Branch(dense, teacher.text if text is None else text, self.neck, trunk)

    def attach_teacher(self, device: torch.device | str | None = None) -> FrozenTeacher:
        """Make the teacher where there is none, with the same weights on every rank.

        To be called while the student has its initial weights, whole.
        """
        if self.teacher is None:
            teacher = self.build_teacher()
            if device is not None:
                teacher.to(device)
            for tensor in teacher.encoder.state_dict().values():
                broadcast(tensor)
            self.teacher = teacher
        return self.teacher

    def build_teacher(self) -> FrozenTeacher:
        """A teacher with the pretrained weights of the student's encoder."""
        if self.encoder is None:
            raise NotImplementedError(f'{type(self).__name__} must implement build_teacher')
        return FrozenTeacher.from_student(self.encoder)

    def share_with_teacher(self) -> list[str]:
        """Let the teacher use the tensors that the student does not train; their names."""
        if self.teacher is None or self.encoder is None:
            return []
        return self.teacher.share_with(self.encoder)

    def checkpoint_entry(self) -> dict[str, Tensor] | None:
        """Weights for a checkpoint that are in no state dict; None where there are none."""
        return None

    def restore(self, entry: Mapping[str, Tensor] | None, resumes: bool) -> None:
        """Put back what :meth:`checkpoint_entry` gave; a run that ``resumes`` needs what it had."""


class Student:
    """A model with a ``distiller``; a base of models that learn beside a teacher."""

    distiller: Distiller

    @property
    def teacher(self) -> FrozenTeacher | None:
        """The distiller's teacher; None outside of training."""
        return self.distiller.teacher

    @teacher.setter
    def teacher(self, teacher: FrozenTeacher | None) -> None:
        self.distiller.teacher = teacher
