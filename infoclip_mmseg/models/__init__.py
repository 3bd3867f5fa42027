"""The model, from class names and pixels to logits; read the modules in the order of this list."""

from infoclip_mmseg.models.backbones.dual_encoder import CLIPDualEncoder, ImageFeatures
from infoclip_mmseg.models.backbones.guidance import AppearanceGuidance
from infoclip_mmseg.models.backbones.mask_tokens import MaskTokenEncoder
from infoclip_mmseg.models.data_preprocessor import OpenVocabDataPreProcessor
from infoclip_mmseg.models.decode_heads.base import OpenVocabHead
from infoclip_mmseg.models.decode_heads.cat_seg import CATSegHead
from infoclip_mmseg.models.decode_heads.mask_classification import MaskClassificationHead
from infoclip_mmseg.models.decode_heads.mask_tokens import MaskTokenHead
from infoclip_mmseg.models.decode_heads.zero_shot import CosineHead, ZeroShotHead
from infoclip_mmseg.models.distillation.distiller import FrozenTeacher
from infoclip_mmseg.models.distillation.foreign import Distillation
from infoclip_mmseg.models.necks.content_transfer import ContentDependentTransfer
from infoclip_mmseg.models.necks.lpam import LPAM
from infoclip_mmseg.models.proposals.frozen import FrozenMaskGenerator
from infoclip_mmseg.models.proposals.mask2former import Mask2FormerProposals
from infoclip_mmseg.models.segmentors.distilled import distilled_segmentor
from infoclip_mmseg.models.segmentors.ensemble import EnsembleSegmentor
from infoclip_mmseg.models.segmentors.open_vocab import OpenVocabSegmentor
from infoclip_mmseg.models.segmentors.tta import OpenVocabTTAModel
from infoclip_mmseg.models.text.prompts import PromptSet, build_prompts

__all__ = [
    'LPAM',
    'AppearanceGuidance',
    'CATSegHead',
    'CLIPDualEncoder',
    'ContentDependentTransfer',
    'CosineHead',
    'Distillation',
    'EnsembleSegmentor',
    'FrozenMaskGenerator',
    'FrozenTeacher',
    'ImageFeatures',
    'Mask2FormerProposals',
    'MaskClassificationHead',
    'MaskTokenEncoder',
    'MaskTokenHead',
    'OpenVocabDataPreProcessor',
    'OpenVocabHead',
    'OpenVocabSegmentor',
    'OpenVocabTTAModel',
    'PromptSet',
    'ZeroShotHead',
    'build_prompts',
    'distilled_segmentor',
]
