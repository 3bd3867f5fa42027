"""EnsembleSegmentor: the tuned model and the untouched CLIP, asked together."""

from __future__ import annotations

from typing import Any

import torch
from mmseg.registry import MODELS
from torch import Tensor

from infoclip_mmseg.models.backbones.dual_encoder import ImageFeatures
from infoclip_mmseg.models.distillation.distiller import FrozenTeacher
from infoclip_mmseg.models.layers.cost_volume import ClassLogits, cost_volume, scatter_logits
from infoclip_mmseg.models.segmentors.open_vocab import OpenVocabSegmentor
from infoclip_mmseg.utils.tensors import resize


def geometric_mean(logits: Tensor, log_probabilities: Tensor, weight: float) -> Tensor:
    """Logits of ``sigmoid(logits)^(1 - weight) * p^weight``, all of one shape, float32."""
    mixed = (1 - weight) * torch.nn.functional.logsigmoid(logits.float())
    mixed = (mixed + weight * log_probabilities.float()).clamp(max=-1e-6)
    return mixed - torch.log(-torch.expm1(mixed))


@MODELS.register_module()
class EnsembleSegmentor(OpenVocabSegmentor):
    """Tests an :class:`OpenVocabSegmentor` with the untouched CLIP beside the tuned one.

    The probability of a class is the geometric mean of the head's and of the untouched CLIP's,
    the softmax over the words of its cosines times its logit scale; FC-CLIP (arXiv 2308.02487)
    does so for masks. Costs a second pass of the image tower. The untouched CLIP is built from
    ``backbone.pretrained`` when it is first asked, and is in no state dict; training is that of
    the base class.

    Args:
        untouched_weight: Exponent of the untouched CLIP's probability, 0..1; the head has the rest.
        **kwargs: Arguments of :class:`OpenVocabSegmentor`.
    """

    def __init__(self, *, untouched_weight: float = 0.5, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if not 0 <= untouched_weight <= 1:
            raise ValueError(f'untouched_weight must be from 0 to 1, got {untouched_weight}')
        if self.decode_head.whole_vocabulary:
            raise ValueError(
                f'a {type(self.decode_head).__name__} is the untouched CLIP itself: take a trained '
                'head, or OpenVocabSegmentor'
            )
        self.untouched_weight = untouched_weight
        self._untouched: FrozenTeacher | None = None

    def encode_decode(self, inputs: Tensor, batch_img_metas: list[dict] | None = None) -> Tensor:
        """Logits (B, T, h', w') of the geometric mean, at the head's resolution."""
        logits, classes = self._decode(inputs)
        return logits if classes is None else scatter_logits(logits, classes, self.out_channels)

    def decode_features(
        self, inputs: Tensor, features: ImageFeatures, classes: Tensor | None = None
    ) -> ClassLogits:
        """As of the base class, of the geometric mean."""
        logits, classes = super().decode_features(inputs, features, classes)
        encoder = self._untouched_on(inputs.device).encoder
        dense = encoder.encode_image(self._at_input_size(inputs)).dense
        text = encoder.embed_prompts(self.prompts).mean(dim=1, keepdim=True)
        scale: Any = encoder.clip.logit_scale
        cosines = cost_volume(dense, text)[:, :, 0].float()
        cosines = resize(cosines, (logits.shape[-2], logits.shape[-1]))
        log_probabilities = (scale.exp() * cosines).log_softmax(dim=1)
        if classes is not None:
            index = classes[:, :, None, None].expand_as(logits)
            log_probabilities = log_probabilities.gather(1, index)
        return ClassLogits(
            geometric_mean(logits, log_probabilities, self.untouched_weight), classes
        )

    def _untouched_on(self, device: torch.device) -> FrozenTeacher:
        if self._untouched is None:
            if self.backbone.pretrained is None:
                raise ValueError(
                    'EnsembleSegmentor needs the untouched CLIP: set model.backbone.pretrained to '
                    'the weights that training started from'
                )
            self._untouched = FrozenTeacher.from_student(self.backbone)
        return self._untouched.to(device)
