"""Use of trained models on images and words of one's own."""

from infoclip_mmseg.apis.image_sources import count_pictures, list_sources
from infoclip_mmseg.apis.inferencer import OpenVocabInferencer
from infoclip_mmseg.apis.prediction import Prediction
from infoclip_mmseg.apis.segments import Segments
from infoclip_mmseg.apis.words import parse_words
from infoclip_mmseg.utils.images import ImageError, read_image
from infoclip_mmseg.visualization.overlay import draw_overlay

__all__ = [
    'ImageError',
    'OpenVocabInferencer',
    'Prediction',
    'Segments',
    'count_pictures',
    'draw_overlay',
    'list_sources',
    'parse_words',
    'read_image',
]
