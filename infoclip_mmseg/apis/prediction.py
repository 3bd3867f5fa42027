"""What is found in one image, and the files that it is written to."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from infoclip_mmseg.apis.words import Words

# Pixels that are counted at a time.
_CHUNK = 1 << 22


@dataclass(frozen=True)
class Prediction:
    """Labels of one image.

    Legend: h w pixels of the image as it is seen (EXIF applied), T classes, N names.

    Attributes:
        name: Path or address of the image, 'array 3', or 'clip.mp4#12' for a frame.
        stem: Name of the files that are written for it, without suffix.
        labels: (h, w), indices into ``names``; uint8, or uint16 with more than 256 names.
        names: N names: the T classes in the order given and, where the call has one, 'background'.
        palette: N colours [r, g, b], 0..255; the background is black.
        areas: Pixels (N,) of each name.
        mean_scores: Mean probability (N,) of the winning word over the pixels of each name; NaN
            where it has none.
        num_classes: T.
        scores: Probabilities (T, h, w), float32, of the classes; None unless asked for.
        probability: Probability (h, w), float32, of the word that won; None unless scores were
            asked for.
        visualization: The overlay with its legend, RGB 0..255; None unless asked for.
    """

    name: str
    stem: str
    labels: NDArray
    names: tuple[str, ...]
    palette: list[list[int]]
    areas: NDArray[np.int64]
    mean_scores: NDArray[np.float64]
    num_classes: int
    scores: NDArray[np.float32] | None = field(default=None, repr=False)
    probability: NDArray[np.float32] | None = field(default=None, repr=False)
    visualization: NDArray[np.uint8] | None = field(default=None, repr=False)

    @property
    def shares(self) -> NDArray[np.float64]:
        """Share (N,) of the image that each name covers, 0..1."""
        return self.areas / self.labels.size

    @property
    def background_index(self) -> int | None:
        """Label of the background, or None where the call had none."""
        return self.num_classes if len(self.names) > self.num_classes else None

    def found(self) -> list[dict[str, Any]]:
        """Index, name, colour, pixels, share and mean score of what is there, largest first."""
        order = np.argsort(-self.areas, kind='stable')
        return [
            dict(
                index=int(i),
                name=self.names[i],
                colour=list(self.palette[i]),
                pixels=int(self.areas[i]),
                share=round(float(self.shares[i]), 6),
                mean_score=round(float(self.mean_scores[i]), 6),
            )
            for i in order
            if self.areas[i]
        ]

    def to_dict(self) -> dict[str, Any]:
        """What the JSON file holds."""
        height, width = self.labels.shape
        return dict(
            image=self.name,
            height=height,
            width=width,
            num_names=len(self.names),
            background=self.background_index,
            classes=self.found(),
        )


def make_prediction(
    name: str,
    stem: str,
    labels: NDArray,
    probability: NDArray[np.float32],
    words: Words,
    scores: NDArray[np.float32] | None = None,
    keep_probability: bool = False,
) -> Prediction:
    """Count areas and average scores.

    Args:
        name, stem: See :class:`Prediction`.
        labels: (h, w), indices into ``words.names``.
        probability: (h, w) of the word that won.
        words: The words of the call.
        scores: (T, h, w) or None.
        keep_probability: Whether the result holds ``probability``.
    """
    count = len(words.names)
    labels = labels.astype(np.uint8 if count <= 256 else np.uint16)
    areas, total = np.zeros(count, np.int64), np.zeros(count)
    step = max(1, _CHUNK // labels.shape[1])
    for top in range(0, len(labels), step):
        rows = labels[top : top + step].ravel()
        areas += np.bincount(rows, minlength=count)
        total += np.bincount(rows, probability[top : top + step].ravel(), minlength=count)
    means = np.divide(total, areas, out=np.full(count, np.nan), where=areas > 0)
    return Prediction(
        name,
        stem,
        labels,
        words.names,
        words.palette,
        areas,
        means,
        len(words.classes),
        scores,
        probability if keep_probability else None,
    )


def label_image(labels: NDArray, palette: list[list[int]]) -> Image.Image:
    """Label map (h, w) as an image: indexed with its palette, or 16-bit grey above 256 names."""
    if labels.dtype == np.uint8:
        image = Image.fromarray(labels)
        image.putpalette([value for colour in palette for value in colour])
        return image
    return Image.fromarray(labels.astype(np.uint16))


def save_prediction(prediction: Prediction, out_dir: Path) -> None:
    """Write ``pred/STEM.png`` (labels), ``pred/STEM.json`` and, if drawn, ``vis/STEM.jpg``."""
    folder = out_dir / 'pred'
    folder.mkdir(parents=True, exist_ok=True)
    label_image(prediction.labels, prediction.palette).save(folder / f'{prediction.stem}.png')
    if prediction.visualization is not None:
        (out_dir / 'vis').mkdir(exist_ok=True)
        picture = Image.fromarray(prediction.visualization)
        picture.save(out_dir / 'vis' / f'{prediction.stem}.jpg', quality=92, subsampling=0)
    write_json(folder / f'{prediction.stem}.json', prediction.to_dict())


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write JSON in UTF-8; bytes of file names that are no text become escapes."""
    text = json.dumps(content, ensure_ascii=False, indent=1) + '\n'
    path.write_text(text, encoding='utf-8', errors='backslashreplace')
