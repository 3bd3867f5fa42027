"""Task and alignment losses, and the matrix-based entropies behind them."""

from infoclip_mmseg.losses.alignment import (
    InfoBottleneckLoss,
    MITransferLoss,
    gather_samples,
    info_bottleneck,
    mutual_information_transfer,
)
from infoclip_mmseg.losses.base import (
    Branch,
    DistillationLoss,
    build_losses,
    cosine_relation,
    distill,
)
from infoclip_mmseg.losses.cauchy_schwarz import CauchySchwarzLoss, cauchy_schwarz_divergence
from infoclip_mmseg.losses.entropy import (
    gram_matrix,
    joint_entropy,
    joint_gram,
    mutual_information,
    renyi_entropy,
)
from infoclip_mmseg.losses.masks import (
    Mask2FormerCriterion,
    MaskAwareLoss,
    MaskClassLoss,
    mask_aware_loss,
    match_masks,
)
from infoclip_mmseg.losses.reconstruction import FiSeRLoss
from infoclip_mmseg.losses.rivals import (
    KLDistillationLoss,
    RepresentationCompensationLoss,
    SelfDistillationLoss,
    class_kl,
    embedding_smooth_l1,
    representation_compensation,
)
from infoclip_mmseg.losses.task import CATSegBCELoss, catseg_bce

__all__ = [
    'Branch',
    'CATSegBCELoss',
    'CauchySchwarzLoss',
    'DistillationLoss',
    'FiSeRLoss',
    'InfoBottleneckLoss',
    'KLDistillationLoss',
    'MITransferLoss',
    'Mask2FormerCriterion',
    'MaskAwareLoss',
    'MaskClassLoss',
    'RepresentationCompensationLoss',
    'SelfDistillationLoss',
    'build_losses',
    'catseg_bce',
    'cauchy_schwarz_divergence',
    'class_kl',
    'cosine_relation',
    'distill',
    'embedding_smooth_l1',
    'gather_samples',
    'gram_matrix',
    'info_bottleneck',
    'joint_entropy',
    'joint_gram',
    'mask_aware_loss',
    'match_masks',
    'mutual_information',
    'mutual_information_transfer',
    'renyi_entropy',
    'representation_compensation',
]
