"""Captioned views of the composed world: what the small CLIP is pretrained on.

Legend: n views of a size, s side of a view in pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from mmengine.model import BaseDataPreprocessor
from mmengine.registry import FUNCTIONS
from mmseg.registry import DATASETS, MODELS
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from infoclip_mmseg.world import WorldSpec, caption, make_spec, render_scene, scene_rng


@DATASETS.register_module()
class CaptionedViewsDataset(Dataset):
    """Scenes of the composed world as captioned pictures: cut out at several sizes.

    An item is one scene with all its views, so that a scene is drawn once for all of them. Half of
    the views of a size have an object in their middle, as photographs of things have; the others
    lie anywhere. The caption names what is in the view, the largest first.

    Args:
        views: Side in pixels to the number of views of that size in a scene.
        length: Number of scenes.
        seed: Of the scenes and the captions. Scene i is the same in every process.
        size: Height and width of a scene, pixels.
        named: Side of a view to how many classes its caption names at most; 4 where it is not
            given. Captions of close-ups name their one subject.
        spec: Overrides of the world's attributes, see
            :func:`~infoclip_mmseg.world.make_spec`.

    Raises:
        ValueError: A view is larger than the scene.
    """

    def __init__(
        self,
        views: dict[int, int],
        length: int = 1_000_000,
        seed: int = 0,
        size: Sequence[int] = (64, 64),
        named: dict[int, int] | None = None,
        spec: dict | None = None,
    ) -> None:
        self.views = {int(side): int(count) for side, count in views.items()}
        if not self.views or max(self.views) > min(size):
            raise ValueError(
                f'views must be of sides up to the scene size {tuple(size)}, got {self.views}'
            )
        self.length, self.seed, self.size = length, seed, (size[0], size[1])
        self.named = {int(side): count for side, count in (named or {}).items()}
        self.spec: WorldSpec = make_spec(spec)

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> dict[str, Any]:
        """``images``: size to uint8 RGB (n, s, s, 3); ``texts``: size to n captions."""
        rng = scene_rng(self.seed, 'pretrain', index)
        scene = render_scene(rng, self.size, self.spec)
        images: dict[str, NDArray[np.uint8]] = {}
        texts: dict[str, list[str]] = {}
        for side, count in self.views.items():
            corners = [self._corner(rng, scene, side, number) for number in range(count)]
            cuts = [(slice(top, top + side), slice(left, left + side)) for top, left in corners]
            images[str(side)] = np.stack([scene.image[cut] for cut in cuts])
            texts[str(side)] = [
                caption(rng, scene.labels[cut], self.spec, self.named.get(side, 4)) for cut in cuts
            ]
        return dict(images=images, texts=texts)

    def _corner(
        self, rng: np.random.Generator, scene: Any, side: int, number: int
    ) -> tuple[int, int]:
        """Top and left of a view; every other one is laid around an object."""
        room = self.size[0] - side, self.size[1] - side
        visible = [item for item in scene.objects if item.visible]
        if number % 2 or not visible:
            return int(rng.integers(room[0] + 1)), int(rng.integers(room[1] + 1))
        top, left, bottom, right = visible[int(rng.integers(len(visible)))].box
        middle = (top + bottom - side) // 2, (left + right - side) // 2
        return tuple(int(np.clip(m, 0, r)) for m, r in zip(middle, room))  # type: ignore[return-value]


@FUNCTIONS.register_module()
def collate_views(items: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Views of all scenes, size by size.

    Returns:
        ``images``: size to uint8 RGB (n, 3, s, s); ``texts``: size to n captions.
    """
    images = {
        size: torch.from_numpy(
            np.concatenate([item['images'][size] for item in items]).transpose(0, 3, 1, 2).copy()
        )
        for size in items[0]['images']
    }
    texts = {
        size: [text for item in items for text in item['texts'][size]] for size in items[0]['texts']
    }
    return dict(images=images, texts=texts)


@MODELS.register_module()
class ViewPreprocessor(BaseDataPreprocessor):
    """Normalises views.

    Args:
        mean: Of the channels R, G, B, 0..255.
        std: Of the channels, likewise.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        self.register_buffer('mean', torch.tensor(mean).view(-1, 1, 1), persistent=False)
        self.register_buffer('std', torch.tensor(std).view(-1, 1, 1), persistent=False)

    def forward(self, data: dict[str, Any], training: bool = False) -> dict[str, Any]:
        """The batch of :func:`collate_views` with float images on the model's device."""
        data = self.cast_data(data)
        images = {
            key: (value.float() - self.mean) / self.std for key, value in data['images'].items()
        }
        return dict(images=images, texts=data['texts'])
