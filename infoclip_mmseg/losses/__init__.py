"""Task and alignment losses, and the matrix-based entropies behind them."""

from infoclip_mmseg.losses.alignment import (
    InfoBottleneckLoss,
    MITransferLoss,
    info_bottleneck,
    mutual_information_transfer,
)
from infoclip_mmseg.losses.distillation import (
    Branch,
    DistillationLoss,
    build_losses,
    cosine_relation,
    distill,
)
from infoclip_mmseg.losses.entropy import (
    gram_matrix,
    joint_entropy,
    joint_gram,
    mutual_information,
    renyi_entropy,
)
from infoclip_mmseg.losses.gather import gather_samples
from infoclip_mmseg.losses.task import CATSegBCELoss, catseg_bce

__all__ = [
    'Branch',
    'CATSegBCELoss',
    'DistillationLoss',
    'InfoBottleneckLoss',
    'MITransferLoss',
    'build_losses',
    'catseg_bce',
    'cosine_relation',
    'distill',
    'gather_samples',
    'gram_matrix',
    'info_bottleneck',
    'joint_entropy',
    'joint_gram',
    'mutual_information',
    'mutual_information_transfer',
    'renyi_entropy',
]
