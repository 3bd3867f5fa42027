from __future__ import annotations

import pytest
import torch

from infoclip_mmseg.experiments.timing.inputs import (
    ADJECTIVES,
    class_names,
    random_images,
    random_labels,
    random_text,
    training_batch,
)
from infoclip_mmseg.experiments.timing.settings import TimingError


def test_names_are_distinct_and_those_of_the_benchmarks_come_first():
    names = class_names(100_000)
    assert len(set(names)) == 100_000
    assert names[:2] == ['person', 'bicycle']
    assert class_names(171) == names[:171]
    assert any(name.split()[0] in ADJECTIVES for name in names[30_000:30_010])
    assert max(len(name.split()) for name in names) < 10


@pytest.mark.parametrize('count', [0, -1, 10**7])
def test_impossible_numbers_of_names_are_refused(count):
    with pytest.raises(TimingError, match=f'got {count}'):
        class_names(count)


def test_images_and_labels_have_the_size_and_range_asked_for():
    images, labels = random_images(2, (50, 70)), random_labels(2, (50, 70), 4)
    assert images.shape == (2, 3, 50, 70) and images.dtype == torch.uint8
    assert images.float().std() > 20
    assert labels.shape == (2, 50, 70)
    assert set(labels.unique().tolist()) <= {0, 1, 2, 3, 255}
    assert (labels == 255).any() and (labels != 255).any()
    batch = training_batch(images, labels)
    assert torch.equal(batch['data_samples'][1].gt_sem_seg.data[0], labels[1])


def test_random_text_is_normalised():
    text = random_text(5, 2, 8)
    assert text.shape == (5, 2, 8)
    assert torch.allclose(text.norm(dim=-1), torch.ones(5, 2))
