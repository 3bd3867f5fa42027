"""The image tower of a CLIP with a ConvNeXt trunk, read densely at any image size.

Legend: B images, h w pixels, H W grid of the last stage, K its channels, C channels of the joint
embedding space.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from open_clip.timm_model import TimmModel
from timm.layers import Mlp
from timm.models.convnext import ConvNeXt
from torch import Tensor, nn


class ConvNeXtTower:
    """Dense and pooled embeddings of open_clip's ``TimmModel`` around a ConvNeXt.

    The interface is that of :class:`~infoclip_mmseg.models.backbones.vit.ViTTower`; the block maps
    are the outputs of the stages, fine to coarse (strides 4 to 32), and ``width`` has the channels
    of each. ``patch_size`` is the stride of the last stage.

    Args:
        visual: The tower.
        dense_mode: Left at 'catseg': every position of the last stage goes through the tower's own
            head, norm and projection, as the mean of them does in CLIP.
        out_blocks: Stages whose maps are returned; None: all.

    Another mode, and a stage that is not there, is a ValueError.
    """

    def __init__(
        self, visual: Any, dense_mode: str = 'catseg', out_blocks: Sequence[int] | None = None
    ) -> None:
        if dense_mode != 'catseg':
            raise ValueError(
                f'a ConvNeXt has one dense reading, got dense_mode={dense_mode!r}: leave it out '
                '(the others are of the last attention block of a ViT)'
            )
        self.visual, self.trunk, self.dense_mode = visual, visual.trunk, dense_mode
        stages = self.trunk.stages
        self.out_blocks = tuple(range(len(stages)) if out_blocks is None else out_blocks)
        if not all(0 <= index < len(stages) for index in self.out_blocks):
            raise ValueError(f'out_blocks must lie in 0..{len(stages) - 1}, got {self.out_blocks}')
        widths = [stage.blocks[-1].mlp.fc2.out_features for stage in stages]
        self.width = tuple(widths[index] for index in self.out_blocks)
        linear = [m for m in visual.head.modules() if isinstance(m, nn.Linear)][-1]
        self.embed_dim: int = linear.out_features
        side = self.trunk.stem[0].stride[0]
        for stage in stages:
            downsampling = [m for m in stage.downsample.modules() if isinstance(m, nn.Conv2d)]
            side *= downsampling[-1].stride[0] if downsampling else 1
        self.patch_size = (side, side)

    def dense(
        self, images: Tensor, run: Callable[..., Tensor]
    ) -> tuple[Tensor, Tensor, tuple[Tensor, ...]]:
        """Dense embeddings of normalised images (B, 3, h, w), whose sides are whole patches.

        ``run`` calls its first argument, a block, with the others: the place for checkpointing.

        Returns:
            Dense embeddings (B, C, H, W), the pooled one (B, C), and the maps of ``out_blocks``.
        """
        last, maps = self._stages(images, run)
        positions = last.flatten(2).transpose(1, 2)
        dense = self.project(positions).transpose(1, 2).unflatten(2, last.shape[-2:])
        return dense, self.project(positions.mean(dim=1)), maps

    def pooled(self, images: Tensor, run: Callable[..., Tensor]) -> Tensor:
        """CLIP's ordinary image embedding (B, C), not normalised; see :meth:`dense`."""
        last, _ = self._stages(images, run)
        return self.project(last.flatten(2).mean(dim=2))

    def project(self, features: Tensor) -> Tensor:
        """Norm and projection of the tower: pooled features (..., K) to embeddings (..., C)."""
        flat = features.reshape(-1, features.shape[-1])
        embedded = self.visual.head(self.trunk.head(flat[:, :, None, None]))
        return embedded.reshape(*features.shape[:-1], -1)

    def _stages(
        self, images: Tensor, run: Callable[..., Tensor]
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        height, width = images.shape[-2:]
        patch = self.patch_size
        if min(height, width) == 0 or height % patch[0] or width % patch[1]:
            raise ValueError(
                f'the image tower needs images whose sides are multiples of {patch[0]} x '
                f'{patch[1]} pixels, got {height} x {width}; pad them, or set input_size '
                'accordingly'
            )
        x, maps = self.trunk.stem(images), []
        for index, stage in enumerate(self.trunk.stages):
            x = stage.downsample(x)
            for block in stage.blocks:
                x = run(block, x)
            if index in self.out_blocks:
                maps.append(x)
        return self.trunk.norm_pre(x), tuple(maps)


def build_trunk(visual: TimmModel, sizes: Mapping[str, Any], embed_dim: int) -> None:
    """Give a tower a ConvNeXt of other sizes, in place.

    ``sizes`` has ``depths`` and ``dims`` of the stages, perhaps ``stem_stride`` (4) and the other
    arguments of timm's ``ConvNeXt``. The kind of projection stays.
    """
    options = dict(sizes)
    stem = options.pop('stem_stride', 4)
    visual.trunk = ConvNeXt(num_classes=0, patch_size=stem, **options)
    width = visual.trunk.num_features
    parts: OrderedDict[str, nn.Module] = OrderedDict()
    if 'mlp' in dict(visual.head.named_children()):
        biases = (True, visual.head.mlp.fc2.bias is not None)
        parts['mlp'] = Mlp(width, 2 * embed_dim, embed_dim, drop=(0.0, 0.0), bias=biases)
    else:
        parts['drop'] = nn.Dropout(0.0)
        parts['proj'] = nn.Linear(width, embed_dim, bias=visual.head.proj.bias is not None)
    visual.head = nn.Sequential(parts)


def is_convnext(visual: Any) -> bool:
    """Whether an image tower is one that :class:`ConvNeXtTower` reads."""
    return isinstance(visual, TimmModel) and isinstance(visual.trunk, ConvNeXt)
