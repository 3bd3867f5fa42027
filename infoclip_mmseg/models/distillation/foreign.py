"""Distillation: the distiller of a student that this package does not know."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import open_clip
from mmseg.registry import MODELS
from torch import Tensor, nn

from infoclip_mmseg.losses.base import Branch, build_losses
from infoclip_mmseg.models.distillation.distiller import Distiller, FrozenTeacher
from infoclip_mmseg.models.distillation.guard_words import GuardWords
from infoclip_mmseg.models.distillation.taps import make_taps, match_grid, read_dense, read_text
from infoclip_mmseg.models.normalisation import Normalisation, as_trained, renormalise
from infoclip_mmseg.models.text.prompts import DEFAULT_TEMPLATES, PromptSet
from infoclip_mmseg.utils.tensors import pair, resize


class Distillation(Distiller, nn.Module):
    """Distiller of any student: says where its embeddings are and fits them to the teacher's.

    Its weights are trained with the student's but are in no state dict, neither its own nor the
    student's; :class:`~infoclip_mmseg.engine.FrozenTeacherHook` keeps them in checkpoints under a
    key of their own.

    Args:
        teacher: Config of the :class:`CLIPDualEncoder` that is frozen.
        dense: Where the student's dense image embeddings come from: ``module``, the path of a
            submodule that returns a map (B, C, h, w); ``side='input'`` takes what the module is
            given instead; ``index`` leads through tuples and dicts to the tensor. With ``masks``,
            of the same keys and for mask logits (B, Q, h, w), the module returns query embeddings
            (B, Q, C).
        channels: C of that map where it is not in the teacher's embedding space; a 1x1 convolution,
            trained beside LPAM, then brings it there. None: it is.
        text: Where the student's text embeddings (T, C) come from, in the same keys; more rows than
            classes are left out. None: the student has none, and the teacher's embeddings of the
            class names stand in.
        neck: :class:`LPAM`, or None for plain cosines.
        loss_ib, loss_mi, loss_distill: As in :class:`OpenVocabSegmentor`; at least one.
        input_size: Size in pixels to which the teacher's images are resized, multiples of its
            patch; None: the student's.
        mean, std: The teacher's normalisation of RGB images, 0..255; by default that of its
            weights' tag, or for a file OpenAI's.
        templates, synonyms: See :func:`build_prompts`.
        guard_words: As in :class:`OpenVocabSegmentor`; both sides have the teacher's embeddings of
            them.
    """

    def __init__(
        self,
        teacher: dict,
        dense: dict,
        channels: int | None = None,
        text: dict | None = None,
        neck: dict | None = None,
        loss_ib: dict | None = None,
        loss_mi: dict | None = None,
        loss_distill: Sequence[dict] | None = None,
        input_size: int | Sequence[int] | None = None,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        templates: str | Sequence[str] = DEFAULT_TEMPLATES,
        synonyms: str = 'first',
        guard_words: Sequence[str] | str | None = None,
    ) -> None:
        nn.Module.__init__(self)
        self.teacher_cfg = dict(teacher)
        self.taps = make_taps(dense, text)
        self.input_size = None if input_size is None else pair(input_size)
        stated = dict(mean=mean, std=std)
        self.normalisation = Normalisation(
            **as_trained(stated, self.teacher_cfg, 'model.distillation')
        )
        self.templates, self.synonyms, self.channels = templates, synonyms, channels
        configs = [loss for loss in (loss_ib, loss_mi, *(loss_distill or ())) if loss]
        if not configs:
            raise ValueError('distillation without a loss: set loss_ib, loss_mi or loss_distill')
        self.embed_dim = _embed_dim(self.teacher_cfg['model_name'])
        losses = build_losses(configs)
        relate = MODELS.build({'embed_dim': self.embed_dim, **neck}) if neck is not None else None
        guard = None if guard_words is None else GuardWords(guard_words, templates, synonyms)
        Distiller.__init__(self, None, losses, relate, guard)
        self.projection = None if channels is None else nn.Conv2d(channels, self.embed_dim, 1)
        self._register_state_dict_hook(_leave_out)

    def forward(
        self, read: Mapping[str, Any], images: Tensor, source: Normalisation, prompts: PromptSet
    ) -> dict[str, Tensor]:
        """Losses of a batch, by name.

        ``read`` is what the student's modules computed, from :func:`read_modules`; the student's
        ``images`` (B, 3, h, w) were normalised as ``source`` says.
        """
        images = renormalise(images, source, self.normalisation)
        if self.input_size is not None:
            images = resize(images, self.input_size)
        dense = read_dense(read, self.taps)
        text = read_text(read, self.taps, prompts.num_classes)
        return self.alignment_loss(images, prompts, dense, text)

    def student_branch(
        self, dense: Tensor, text: Tensor | None, teacher: Branch, trunk: Tensor | None = None
    ) -> Branch:
        """The student on the teacher's grid and in its embedding space."""
        dense = match_grid(dense, (teacher.dense.shape[-2], teacher.dense.shape[-1]))
        expected = self.embed_dim if self.channels is None else self.channels
        if dense.shape[1] != expected:
            raise ValueError(
                f'the dense embeddings of the student have {dense.shape[1]} channels, expected '
                f'{expected}; set distillation.channels={dense.shape[1]}'
            )
        if self.projection is not None:
            dense = self.projection(dense)
        return super().student_branch(dense, text, teacher)

    def build_teacher(self) -> FrozenTeacher:
        """The teacher of the config, with its pretrained weights."""
        return FrozenTeacher.from_config(self.teacher_cfg)

    def checkpoint_entry(self) -> dict[str, Tensor]:
        """Weights of neck, projection and losses, on the CPU."""
        return {name: tensor.cpu() for name, tensor in self._parts.state_dict().items()}

    def restore(self, entry: Mapping[str, Tensor] | None, resumes: bool) -> None:
        """Put weights from :meth:`checkpoint_entry` back; a run does not resume without them."""
        if entry is not None:
            self._parts.load_state_dict(entry)
        elif resumes:
            raise ValueError(
                "the checkpoint has no entry 'distillation' with the weights of LPAM: it is not of "
                'a DistilledSegmentor; take it with load_from instead of resuming from it'
            )

    @property
    def _parts(self) -> nn.ModuleDict:
        # The modules with their state dict, which ours leaves out.
        return nn.ModuleDict(dict(self.named_children()))

    def _load_from_state_dict(self, state_dict: dict, prefix: str, *args: Any) -> None:
        # A student's state dict has no weights of ours: the present ones stay.
        for name, tensor in self._parts.state_dict(prefix=prefix).items():
            state_dict.setdefault(name, tensor)
        super()._load_from_state_dict(state_dict, prefix, *args)


def _leave_out(module: nn.Module, state_dict: dict, prefix: str, metadata: dict) -> None:
    for key in [key for key in state_dict if key.startswith(prefix)]:
        del state_dict[key]


def _embed_dim(model_name: str | dict) -> int:
    # Without building the model.
    config = open_clip.get_model_config(model_name) if isinstance(model_name, str) else model_name
    if config is None:
        raise ValueError(
            f'distillation.teacher.model_name={model_name!r} is not known to open_clip'
        )
    return config['embed_dim']
