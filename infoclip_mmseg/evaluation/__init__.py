"""Figures of merit, and the comparison of many runs."""

from infoclip_mmseg.evaluation.open_vocab_metric import OpenVocabIoUMetric
from infoclip_mmseg.evaluation.panoptic import PanopticMetric
from infoclip_mmseg.evaluation.seen_unseen import SeenUnseenIoUMetric

__all__ = ['OpenVocabIoUMetric', 'PanopticMetric', 'SeenUnseenIoUMetric']
