"""OpenVocabTTAModel: test-time augmentation of probabilities."""

from __future__ import annotations

import torch
from mmengine.structures import PixelData
from mmseg.models import SegTTAModel
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample


@MODELS.register_module()
class OpenVocabTTAModel(SegTTAModel):
    """Averages the probabilities of an image's augmented copies, and labels by the head's rule.

    mmseg's SegTTAModel takes ``seg_logits`` for logits, which here are probabilities already, and
    knows neither the threshold of a :class:`ZeroShotHead` nor the label of a single class.
    """

    def merge_preds(self, data_samples_list: list[list[SegDataSample]]) -> list[SegDataSample]:
        """One prediction for each image, of those of its augmented copies.

        Predictions without ``seg_logits``, for the vocabulary is so large, are a ValueError.
        """
        if any('seg_logits' not in sample for copies in data_samples_list for sample in copies):
            limit = self.module.test_cfg['max_dense_classes']
            raise ValueError(
                f'test-time augmentation averages the maps of all classes, which are kept for at '
                f'most {limit} classes, got {self.module.out_channels}; raise '
                'model.test_cfg.max_dense_classes, or evaluate without augmentation'
            )
        for merged, *others in data_samples_list:
            copies = [sample.seg_logits.data for sample in (merged, *others)]
            maps = torch.stack(copies).mean(dim=0)
            probability, winner = maps.max(dim=0)
            labels = self.module.decode_head.labels(winner, probability)
            merged.seg_logits = PixelData(data=maps)
            merged.pred_sem_seg = PixelData(data=labels[None])
            merged.pred_probability = PixelData(data=probability[None])
        return [copies[0] for copies in data_samples_list]
