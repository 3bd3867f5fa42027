"""Pretraining of a small CLIP on the composed world: captioned views, two stages, their file.

Legend: B images, n views of a size, C channels of the joint space, L tokens, H W grid of patches,
h w pixels, s side of a view in pixels.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from mmengine.model import BaseDataPreprocessor, BaseModel
from mmengine.registry import FUNCTIONS
from mmseg.registry import DATASETS, MODELS
from open_clip import ClipLoss
from safetensors.torch import save_file
from torch import Tensor
from torch.utils.data import Dataset

from infoclip_mmseg.models.backbones.dual_encoder import CLIPDualEncoder
from infoclip_mmseg.models.backbones.weights import TOKEN_ROWS, TOKEN_TABLE
from infoclip_mmseg.models.distillation.distiller import Distiller, Student
from infoclip_mmseg.world import DOMAINS, WorldSpec, caption, render_scene, scene_rng

MAX_LOGIT_SCALE = math.log(100)
"""CLIP's bound on the logarithm of the inverse temperature (arXiv 2103.00020, section 2.5)."""


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
        size: Height and width of a scene, pixels; a ValueError where a view is larger.
        named: Side of a view to how many classes its caption names at most; 4 where it is not
            given. Captions of close-ups name their one subject.
        spec: Overrides of the world's attributes, see :class:`~infoclip_mmseg.world.WorldSpec`.
        domain: One of :data:`~infoclip_mmseg.world.render.DOMAINS`.
    """

    def __init__(
        self,
        views: dict[int, int],
        length: int = 1_000_000,
        seed: int = 0,
        size: Sequence[int] = (64, 64),
        named: dict[int, int] | None = None,
        spec: dict | None = None,
        domain: str = 'base',
    ) -> None:
        self.views = {int(side): int(count) for side, count in views.items()}
        if not self.views or max(self.views) > min(size):
            raise ValueError(
                f'views must be of sides up to the scene size {tuple(size)}, got {self.views}'
            )
        self.length, self.seed, self.size = length, seed, (size[0], size[1])
        self.named = {int(side): count for side, count in (named or {}).items()}
        self.spec, self.domain = WorldSpec(**(spec or {})), DOMAINS[domain]

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> dict[str, Any]:
        """``images``: size to uint8 RGB (n, s, s, 3); ``texts``: size to n captions."""
        rng = scene_rng(self.seed, 'pretrain', index)
        scene = render_scene(rng, self.size, self.spec, domain=self.domain)
        images, texts = {}, {}
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
        visible = np.unique(scene.owners[scene.owners >= 0])
        if number % 2 or not len(visible):
            return int(rng.integers(room[0] + 1)), int(rng.integers(room[1] + 1))
        places = np.nonzero(scene.owners == visible[int(rng.integers(len(visible)))])
        middle = [(int(p.min()) + int(p.max()) + 1 - side) // 2 for p in places]
        return min(max(middle[0], 0), room[0]), min(max(middle[1], 0), room[1])


@FUNCTIONS.register_module()
def collate_views(items: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Views of all scenes: ``images``, size to uint8 RGB (n, 3, s, s), and ``texts``."""
    images, texts = {}, {}
    for size in items[0]['images']:
        views = np.concatenate([item['images'][size] for item in items])
        images[size] = torch.from_numpy(views.transpose(0, 3, 1, 2).copy())
        texts[size] = [text for item in items for text in item['texts'][size]]
    return dict(images=images, texts=texts)


@MODELS.register_module()
class ViewPreprocessor(BaseDataPreprocessor):
    """Normalises views by mean and standard deviation of the channels R, G, B, 0..255."""

    mean: Tensor
    std: Tensor

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        self.register_buffer('mean', torch.tensor(mean).view(-1, 1, 1), persistent=False)
        self.register_buffer('std', torch.tensor(std).view(-1, 1, 1), persistent=False)

    def forward(self, data: dict[str, Any], training: bool = False) -> dict[str, Any]:
        """The batch of :func:`collate_views` with float images on the model's device."""
        data = self.cast_data(data)
        images = {k: (v.float() - self.mean) / self.std for k, v in data['images'].items()}
        return dict(images=images, texts=data['texts'])


class ViewsModel(BaseModel):
    """A CLIP that learns from views of several sizes; a base of the two stages.

    ``backbone`` is a config of a :class:`~infoclip_mmseg.models.CLIPDualEncoder`, the preprocessor
    of a :class:`ViewPreprocessor`.
    """

    def __init__(
        self, backbone: dict, data_preprocessor: dict | None = None, init_cfg: dict | None = None
    ) -> None:
        super().__init__(data_preprocessor=data_preprocessor, init_cfg=init_cfg)
        self.backbone = MODELS.build(backbone)

    def loss(self, images: dict[str, Tensor], texts: dict[str, list[str]]) -> dict[str, Tensor]:
        """Losses of a batch: size to normalised views (n, 3, h, w), size to their n captions."""
        raise NotImplementedError

    def forward(
        self, images: dict[str, Tensor], texts: dict[str, list[str]], mode: str = 'loss'
    ) -> dict[str, Tensor]:
        """:meth:`loss`; another mode is a ValueError."""
        if mode != 'loss':
            raise ValueError(f"{type(self).__name__} only knows mode='loss', got {mode!r}")
        return self.loss(images, texts)


@MODELS.register_module()
class ContrastiveCLIP(ViewsModel):
    """CLIP's contrastive loss (open_clip's), one for each size of views; everything trains.

    Views of one size are contrasted among each other only: a patch and a whole scene with the
    same object in them are not negatives of each other. Arguments as of :class:`ViewsModel`.
    """

    def __init__(self, backbone: dict, **kwargs: Any) -> None:
        super().__init__(backbone, **kwargs)
        self.backbone.clip.logit_scale.requires_grad_(True)
        self.contrast = ClipLoss()
        self._tokens = lru_cache(20_000)(lambda text: self.backbone.tokenizer([text])[0])

    def loss(self, images: dict[str, Tensor], texts: dict[str, list[str]]) -> dict[str, Tensor]:
        """One contrastive loss a size."""
        scale = self.backbone.clip.logit_scale
        scale.data.clamp_(max=MAX_LOGIT_SCALE)
        # Small views share many captions; each goes through the text tower once.
        different = sorted({text for captions in texts.values() for text in captions})
        place = {text: row for row, text in enumerate(different)}
        tokens = torch.stack([self._tokens(text) for text in different]).to(scale.device)
        embeddings = F.normalize(self.backbone.encode_text(tokens).float(), dim=-1)
        losses = {}
        for size, views in images.items():
            image = F.normalize(self.backbone.encode_pooled(views).float(), dim=-1)
            text = embeddings[[place[caption] for caption in texts[size]]]
            losses[f'loss_{size}'] = self.contrast(image, text, scale.exp())
        return losses


@torch.no_grad()
def window_embeddings(encoder: CLIPDualEncoder, images: Tensor, windows: Sequence[int]) -> Tensor:
    """Pooled embeddings of the windows around each position, each cut out and encoded alone.

    Images are normalised, (B, 3, h, w); beyond an edge its last pixels are repeated. Windows are
    sides in pixels, multiples of the patch; the embeddings of a position's windows are averaged to
    unit vectors (B, C, H, W).
    """
    height, width = encoder.patch_size
    grid = images.shape[-2] // height, images.shape[-1] // width
    total = torch.zeros((), device=images.device)
    for side in windows:
        top, left = (side - height) // 2, (side - width) // 2
        edge = (left, side - width - left, top, side - height - top)
        padded = F.pad(images, edge, mode='replicate')
        parts = padded.unfold(2, side, height).unfold(3, side, width)
        # (B, 3, H, W, sh, sw) -> (B H W, 3, sh, sw)
        pooled = encoder.encode_pooled(parts.permute(0, 2, 3, 1, 4, 5).flatten(0, 2))
        total = total + F.normalize(pooled.float(), dim=-1)
    return F.normalize(total, dim=-1).unflatten(0, (len(images), *grid)).permute(0, 3, 1, 2)


@MODELS.register_module()
class SelfDistilledCLIP(Student, ViewsModel):
    """Dense embeddings learn to say what the pooled embedding says of the same place, cut out.

    As CLIPSelf (arXiv 2310.01403): windows of the image are cut out and a frozen copy of the model
    encodes each alone; the dense embedding at the window's centre moves towards it (one minus
    their cosine). The text tower does not train, and neither captions nor labels are read.

    Args:
        backbone: Config of an encoder with pretrained weights; its ``dense_mode`` is the reading
            that learns.
        windows: Sides in pixels of the windows of the teacher, see :func:`window_embeddings`.
    """

    def __init__(self, backbone: dict, windows: tuple[int, ...] = (8,), **kwargs: Any) -> None:
        super().__init__(backbone, **kwargs)
        patch = max(self.backbone.patch_size)
        if not windows or any(side < patch or side % patch for side in windows):
            raise ValueError(
                f'windows must be multiples of the patch of {patch} pixels, got {windows}'
            )
        self.backbone.clip.requires_grad_(False)
        self.backbone.clip.visual.requires_grad_(True)
        self.windows = tuple(windows)
        self.distiller = Distiller(self.backbone)

    def loss(self, images: dict[str, Tensor], texts: dict[str, list[str]]) -> dict[str, Tensor]:
        """One minus the cosine, a size; ``texts`` are not read. RuntimeError without a teacher."""
        if self.teacher is None:
            raise RuntimeError("no teacher: add dict(type='FrozenTeacherHook') to custom_hooks")
        losses = {}
        for size, views in images.items():
            features = self.backbone.encode_image(views)
            target = window_embeddings(self.teacher.encoder, views, self.windows)
            losses[f'loss_{size}'] = 1 - F.cosine_similarity(features.dense, target, dim=1).mean()
        return losses


def export_clip(
    encoder: CLIPDualEncoder, path: Path, texts: Iterable[str], metadata: dict[str, str]
) -> Path:
    """Write the encoder's CLIP as .safetensors in float16.

    The token table is cut down to the rows that ``texts`` use, start, end and padding included;
    ``token_embedding.rows`` tells which ones they are. :func:`load_clip_weights` puts the table
    together again. ``texts`` hold each word that the model was trained to read; the file, which is
    returned, keeps the metadata in its header.
    """
    rows = torch.unique(torch.as_tensor(encoder.tokenizer(sorted(set(texts)))))
    state = {key: value.detach().cpu() for key, value in encoder.clip.state_dict().items()}
    state[TOKEN_TABLE] = state[TOKEN_TABLE][rows]
    state = {key: value.to(torch.float16).contiguous() for key, value in state.items()}
    state[TOKEN_ROWS] = rows.int()
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(state, str(path), metadata=metadata)
    return path
