"""OpenVocabTTAModel: test-time augmentation that says when it cannot merge."""

from __future__ import annotations

from mmseg.models import SegTTAModel
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample


@MODELS.register_module()
class OpenVocabTTAModel(SegTTAModel):
    """mmseg's SegTTAModel; it averages ``seg_logits``, which large vocabularies do not have.

    Args:
        module: The segmentor; see ``mmengine.model.BaseTTAModel``.
    """

    def merge_preds(self, data_samples_list: list[list[SegDataSample]]) -> list[SegDataSample]:
        """One prediction for each image.

        Args:
            data_samples_list: For each image the predictions of its augmented copies.

        Raises:
            ValueError: The vocabulary is so large that predictions hold no ``seg_logits``.
        """
        if any('seg_logits' not in sample for copies in data_samples_list for sample in copies):
            limit = self.module.test_cfg['max_dense_classes']
            raise ValueError(
                f'test-time augmentation averages the maps of all classes, which are kept for at '
                f'most {limit} classes, got {self.module.out_channels}; raise '
                'model.test_cfg.max_dense_classes, or evaluate without augmentation'
            )
        return super().merge_preds(data_samples_list)
