"""The model, from class names and pixels to logits; read the modules in the order of this list."""

from infoclip_mmseg.models.cosine_head import CosineHead
from infoclip_mmseg.models.data_preprocessor import OpenVocabDataPreProcessor
from infoclip_mmseg.models.decode_head import CATSegHead
from infoclip_mmseg.models.distillation import Distillation
from infoclip_mmseg.models.distilled_segmentor import distilled_segmentor
from infoclip_mmseg.models.dual_encoder import CLIPDualEncoder, ImageFeatures
from infoclip_mmseg.models.guidance import AppearanceGuidance
from infoclip_mmseg.models.lpam import LPAM
from infoclip_mmseg.models.prompts import PromptSet, build_prompts
from infoclip_mmseg.models.segmentor import OpenVocabSegmentor
from infoclip_mmseg.models.teacher import FrozenTeacher
from infoclip_mmseg.models.tta import OpenVocabTTAModel
from infoclip_mmseg.models.zero_shot_head import ZeroShotHead

__all__ = [
    'LPAM',
    'AppearanceGuidance',
    'CATSegHead',
    'CLIPDualEncoder',
    'CosineHead',
    'Distillation',
    'FrozenTeacher',
    'ImageFeatures',
    'OpenVocabDataPreProcessor',
    'OpenVocabSegmentor',
    'OpenVocabTTAModel',
    'PromptSet',
    'ZeroShotHead',
    'build_prompts',
    'distilled_segmentor',
]
