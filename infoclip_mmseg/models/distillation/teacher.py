"""The frozen pretrained CLIP that guards the image-text alignment."""

from __future__ import annotations

import copy
import zlib
from typing import TYPE_CHECKING, Any

import torch
from mmengine.dist import broadcast
from torch import Tensor, nn

from infoclip_mmseg.models.text.prompts import PromptSet

if TYPE_CHECKING:
    from infoclip_mmseg.models.backbones.dual_encoder import CLIPDualEncoder


class FrozenTeacher:
    """A frozen copy of the student's encoder with the pretrained weights.

    It is not an ``nn.Module``, so that as an attribute of the segmentor it is in no state dict, no
    optimizer and no bucket of a distributed wrapper, and copies of the segmentor share it.

    Args:
        encoder: The encoder to own; it is put into evaluation mode and its gradients turned off.
    """

    def __init__(self, encoder: CLIPDualEncoder) -> None:
        self.encoder = encoder.eval().requires_grad_(False)

    @classmethod
    def from_student(cls, student: CLIPDualEncoder) -> FrozenTeacher:
        """Copy the student's architecture and load the pretrained weights into the copy.

        With ``pretrained=None`` the teacher keeps the weights that the student has at this moment.
        """
        encoder = copy.deepcopy(student)
        encoder.init_weights()
        return cls(encoder)

    def __deepcopy__(self, memo: dict) -> FrozenTeacher:
        return self

    @torch.no_grad()
    def encode(self, images: Tensor, prompts: PromptSet) -> tuple[Tensor, Tensor]:
        """Teacher embeddings.

        Args:
            images: Normalised images (B, 3, h, w).
            prompts: The vocabulary; encoded once, then cached.

        Returns:
            Dense embeddings (B, C, H, W) and text embeddings (T, P, C).
        """
        return self.encoder.encode_image(images).dense, self.encoder.embed_prompts(prompts)

    def to(self, device: torch.device | str) -> FrozenTeacher:
        """Move to a device."""
        self.encoder.to(device)
        return self

    @torch.no_grad()
    def share_with(self, student: CLIPDualEncoder) -> list[str]:
        """Use the student's memory for tensors that it does not train and that are equal.

        Returns:
            Names of the shared tensors.
        """
        own = dict(_tensors(self.encoder))
        shared = []
        for name, tensor in _tensors(student):
            if not tensor.requires_grad and torch.equal(tensor, own[name].to(tensor.device)):
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


def needs_teacher(model: Any) -> bool:
    """Whether a model has losses between teacher and student."""
    return bool(
        getattr(model, 'with_neck', False) or len(getattr(model, 'distillation_losses', ()))
    )


class TaughtMixin:
    """What the teacher's hook asks of a model with a ``backbone`` and a ``teacher``."""

    backbone: Any
    teacher: Any

    def build_teacher(self) -> FrozenTeacher:
        """A teacher with the pretrained weights of this model's backbone."""
        return FrozenTeacher.from_student(self.backbone)

    def share_with_teacher(self) -> list[str]:
        """Let the teacher use what is not trained; returns the names of these tensors."""
        return self.teacher.share_with(self.backbone) if self.teacher else []


def attach_teacher(model: Any) -> FrozenTeacher:
    """Give a segmentor its teacher where it has none, with the same weights on every rank.

    Args:
        model: An OpenVocabSegmentor whose backbone has its initial weights, whole.
    """
    if model.teacher is None:
        teacher = model.build_teacher()
        for tensor in teacher.encoder.state_dict().values():
            broadcast(tensor)
        model.teacher = teacher
    return model.teacher


def _tensors(module: nn.Module) -> list[tuple[str, Tensor]]:
    return [*module.named_parameters(), *module.named_buffers()]
