from __future__ import annotations

import pytest
import torch

from infoclip_mmseg.experiments.timing.bench import (
    ADJECTIVES,
    Bench,
    TimingError,
    class_names,
    make_batch,
    random_labels,
    random_text,
)


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
    batch, labels = make_batch(2, (50, 70), (5, 7)), random_labels(2, (50, 70), 4)
    assert all(x.shape == (3, 50, 70) and x.dtype == torch.uint8 for x in batch['inputs'])
    assert batch['inputs'][0].float().std() > 20
    assert batch['data_samples'][1].ori_shape == (5, 7)
    assert labels.shape == (2, 50, 70)
    assert set(labels.unique().tolist()) <= {0, 1, 2, 3, 255}
    assert (labels == 255).any() and (labels != 255).any()


def test_random_text_is_normalised():
    text = random_text(5, 2, 8)
    assert text.shape == (5, 2, 8)
    assert torch.allclose(text.norm(dim=-1), torch.ones(5, 2))


def test_crops_of_a_size_replace_a_divisor(toy_setting):
    """Configs whose images keep their size, such as those of masks, take --image-size too."""
    setting = toy_setting('train', image_size=48)
    bench = Bench(setting)
    bench.cfg.model.data_preprocessor.size_divisor = 8
    bench.cfg.model.data_preprocessor.pop('size', None)
    model = bench.model()
    batch = model.data_preprocessor(bench.crops(model), True)
    assert batch['inputs'].shape == (2, 3, 48, 48)


def test_a_model_is_compiled_where_the_config_says_so(toy_setting):
    """``--cfg-options compile=True`` means here what it means in tools/train.py."""
    plain = Bench(toy_setting('train')).model()
    options = dict(compile=dict(backend='eager', target='predict'))
    compiled = Bench(toy_setting('train', cfg_options=options)).model()
    assert hasattr(compiled.predict, '_torchdynamo_orig_callable')
    assert not hasattr(compiled.forward, '_torchdynamo_orig_callable')
    assert not hasattr(plain.predict, '_torchdynamo_orig_callable')
