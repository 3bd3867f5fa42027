"""How much of the pretrained alignment a tuned CLIP has kept.

Legend: B images, T words, C channels, H W dense grid.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from infoclip_mmseg.evaluation.open_vocab_metric import Areas, class_iou, count_areas
from infoclip_mmseg.models.backbones.dual_encoder import CLIPDualEncoder
from infoclip_mmseg.models.text.prompts import PromptSet
from infoclip_mmseg.models.views.class_maps import Labeller
from infoclip_mmseg.utils.tensors import Size, cosine, resize

CHUNK = 32
"""Classes whose maps of full size exist at a time."""
MEANINGS = dict(
    agreement='% of positions that the tuned CLIP labels as the untouched one, on the words',
    image_drift='1 - cosine of tuned and untouched dense embeddings, mean over positions',
    text_drift='the same of the text embeddings, mean over the words',
    trained_mIoU='% of the tuned CLIP alone, by cosines, on classes that were trained',
    other_mIoU='% of the tuned CLIP alone on classes that were not',
    trained_mIoU_untouched='% of the untouched CLIP on the former',
    other_mIoU_untouched='% of the untouched CLIP on the latter',
)


class ForgettingCheck:
    """Compares a tuned CLIP with the untouched one, batch by batch.

    Args:
        tuned, untouched: The encoders; their modes are left as they are.
        words: Prompts of the words that must not be forgotten.
        classes: Prompts of the classes of the labels, or None without labels.
        trained: Which of the classes were trained, (T,); others are other words.

    ``sums`` and ``areas`` are what is counted, and may be summed over processes.
    """

    def __init__(
        self,
        tuned: CLIPDualEncoder,
        untouched: CLIPDualEncoder,
        words: PromptSet,
        classes: PromptSet | None = None,
        trained: Sequence[bool] | np.ndarray = (),
    ) -> None:
        self.encoders = (tuned, untouched)
        self.words, self.classes, self.trained = words, classes, np.array(trained, dtype=bool)
        self.sums = torch.zeros(4, dtype=torch.float64)  # positions: equal, drift, all; images
        count = 0 if classes is None else classes.num_classes
        self.areas = torch.zeros(2, len(Areas._fields), count, dtype=torch.float64)

    @property
    def images(self) -> int:
        """Number of images so far."""
        return int(self.sums[-1])

    @torch.no_grad()
    def update(
        self, images: Tensor, labels: Sequence[Tensor] = (), ignore_index: int = 255
    ) -> None:
        """Compare on normalised images (B, 3, h, w) in whole patches, and on their labels.

        Label maps are of any size each, of the class indices or ``ignore_index``.
        """
        dense = [encoder.encode_image(images).dense.float() for encoder in self.encoders]
        words = [_class_embeddings(encoder, self.words) for encoder in self.encoders]
        first, second = (_cosines(d, w).argmax(dim=1) for d, w in zip(dense, words))
        drift = 1 - torch.cosine_similarity(dense[0], dense[1], dim=1)
        counted = (first == second).sum(), drift.sum(), drift.numel(), len(images)
        self.sums += torch.tensor([float(value) for value in counted], dtype=torch.float64)
        if self.classes is None:
            return
        for side, encoder in enumerate(self.encoders):
            cosines = _cosines(dense[side], _class_embeddings(encoder, self.classes))
            for maps, truth in zip(cosines, labels):
                predicted = label_by_cosine(maps, (truth.shape[-2], truth.shape[-1]))
                areas = count_areas(predicted, truth, len(maps), ignore_index)
                self.areas[side] += torch.stack(list(areas)).double()

    @torch.no_grad()
    def figures(self) -> dict[str, float]:
        """What :data:`MEANINGS` says; figures of no class are left out."""
        equal, drift, positions, _ = self.sums.tolist()
        text = [_class_embeddings(encoder, self.words).float() for encoder in self.encoders]
        figures = dict(
            agreement=100 * equal / positions,
            image_drift=drift / positions,
            text_drift=float((1 - torch.cosine_similarity(text[0], text[1], dim=-1)).mean()),
        )
        for areas, suffix in zip(self.areas, ('', '_untouched')):
            iou = class_iou(Areas(*areas)).numpy()
            for name, chosen in (('trained', self.trained), ('other', ~self.trained)):
                values = iou[chosen] if len(chosen) == len(iou) else iou[:0]
                if np.isfinite(values).any():
                    figures[f'{name}_mIoU{suffix}'] = 100 * float(np.nanmean(values))
        return figures


def label_by_cosine(cosines: Tensor, size: Size) -> Tensor:
    """Labels (h, w) of cosines (T, H, W), enlarged (bilinear) a few classes at a time."""
    labeller = Labeller(size, cosines.device)
    for classes in torch.arange(len(cosines), device=cosines.device).split(CHUNK):
        # From 0 on, as the labeller expects of probabilities.
        labeller.update(classes, resize((cosines[classes] + 1)[None], size)[0])
    return labeller.winner


def describe(figures: Mapping[str, float], num_words: int, num_images: int) -> str:
    """One sentence for a log."""
    text = (
        f'the tuned CLIP labels {figures["agreement"]:.1f} % of the positions of {num_images} '
        f'images as the untouched one, on {num_words} words; drift of image embeddings '
        f'{figures["image_drift"]:.4f}, of text {figures["text_drift"]:.4f}'
    )
    for name in ('trained', 'other'):
        if f'{name}_mIoU' in figures:
            before = figures[f'{name}_mIoU_untouched']
            text += f'; mIoU of {name} words {figures[f"{name}_mIoU"]:.1f} (untouched {before:.1f})'
    return text


def draw_forgetting(rows: Sequence[Mapping[str, float]], path: Path) -> None:
    """Draw figures by `iteration`: agreement, drift, and where there are labels mIoU, as PNG."""
    from matplotlib.figure import Figure  # reads files when it is imported

    steps = [row['iteration'] for row in rows]
    panels = {
        'same label as the untouched CLIP, %': ('agreement',),
        'drift, 1 - cosine': ('image_drift', 'text_drift'),
        'mIoU of CLIP alone, %': ('trained_mIoU', 'other_mIoU'),
    }
    shown = {k: v for k, v in panels.items() if any(name in row for name in v for row in rows)}
    picture = Figure((3.6 * len(shown), 3.0), dpi=130, layout='constrained')
    for ax, (title, names) in zip(picture.subplots(1, len(shown), squeeze=False)[0], shown.items()):
        for index, name in enumerate(names):
            values = [row.get(name, np.nan) for row in rows]
            ax.plot(steps, values, marker='o', markersize=3, color=f'C{index}', label=name)
            before = rows[-1].get(f'{name}_untouched')
            if before is not None:
                label = f'{name}, untouched'
                ax.axhline(before, color=f'C{index}', linestyle=':', linewidth=1, label=label)
        ax.set_title(title, fontsize=10)
        ax.set_xlabel('iteration')
        ax.grid(alpha=0.3)
        if len(names) > 1:
            ax.legend(fontsize=7)
    picture.savefig(path)


def _class_embeddings(encoder: CLIPDualEncoder, prompts: PromptSet) -> Tensor:
    return encoder.embed_prompts(prompts).mean(dim=1)


def _cosines(dense: Tensor, text: Tensor) -> Tensor:
    """Cosines (B, T, H, W) of dense embeddings (B, C, H, W) and text embeddings (T, C)."""
    flat = cosine(dense.flatten(2).transpose(1, 2), text.to(dense.device))
    return flat.transpose(1, 2).unflatten(2, dense.shape[-2:])
