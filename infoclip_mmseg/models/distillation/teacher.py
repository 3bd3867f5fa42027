"""The frozen pretrained CLIP that guards the image-text alignment."""

from __future__ import annotations

import copy
import zlib
from typing import TYPE_CHECKING

import torch
from mmseg.registry import MODELS
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
    def encode(self, images: Tensor, prompts: PromptSet) -> tuple[Tensor, Tensor]:
        """Dense (B, C, H, W) and text embeddings (T, P, C), these cached, of normalised images."""
        return self.encoder.encode_image(images).dense, self.encoder.embed_prompts(prompts)

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
