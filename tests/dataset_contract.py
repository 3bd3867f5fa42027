"""What every data set must keep, as a class of tests: derive from it and name the record.

    class TestPAS20(DatasetContract):
        record = BENCHMARKS['voc20']
        classes = 20
        stored = {
            'VOCdevkit/VOC2012/SegmentationClass': {0: 255, 1: 0, 20: 19, 255: 255},
            'VOCdevkit/VOC2012/annotations_detectron2': {0: 0, 19: 19, 255: 255},
        }

Miniatures are drawn from the record; what it says is checked against the lines above.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from mmengine.config import Config
from mmseg.registry import DATASETS
from PIL import Image

from infoclip_mmseg.datasets.benchmarks import (
    Benchmark,
    Layout,
    describe_absence,
    find_layout,
)
from infoclip_mmseg.datasets.loaders import make_dataset_cfg
from infoclip_mmseg.datasets.prepare.pipeline import check_data_set
from infoclip_mmseg.datasets.vocabularies import load_vocabulary
from infoclip_mmseg.evaluation.benchmarks import make_plans

CONFIGS = Path(__file__).parents[1] / 'configs/_base_/datasets'
PIPELINE = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations'),  # the record's data set gets LoadLabelMap for it
    dict(type='CheckInputs'),
    dict(type='PackSegInputs'),
]


class DatasetContract:
    """Tests of a data set by its record.

    Attributes:
        record: What is known of it.
        classes: Number of labels.
        stored: By folder of the label maps below the root of the data: what some values in the
            files mean, a class or the ignored value. Each folder of the record is named.
        ignored: Value of pixels without a label, once loaded.
        refuses: Whether a value that is no class is an error as soon as it is loaded.
        config: Its file in configs/_base_/datasets, if there is one.
    """

    record: Benchmark
    classes: int
    stored: dict[str, dict[int, int]]
    ignored = 255
    refuses = True
    config = ''

    def test_layouts_are_the_named_ones(self):
        assert {str(layout.label_folder()) for layout in self.record.layouts} == set(self.stored)

    def test_names_colours_and_labels_are_as_many(self, tmp_path):
        layout = self.record.layouts[0]
        write(layout, tmp_path)
        meta = build(layout, tmp_path).metainfo
        names = load_vocabulary(self.record.vocabulary)
        assert list(meta.get('prompt_names', meta['classes'])) == names
        assert len(meta['classes']) == len(meta['palette']) == self.classes
        assert all(len(c) == 3 and 0 <= min(c) <= max(c) < 256 for c in meta['palette'])
        assert meta.get('ignore_index', 255) == self.record.ignore_index == self.ignored

    def test_each_layout_is_found_and_gives_the_labels(self, tmp_path):
        for number, layout in enumerate(self.record.layouts):
            root = tmp_path / str(number)
            values = all_values(layout)
            write(layout, root, values)
            assert find_layout(self.record, root) == layout
            labels = dict(zip(values, load(layout, root)))
            expected = self.stored[str(layout.label_folder())]
            assert {value: labels[value] for value in expected} == expected
            # Each class can be stored, and nothing else comes out.
            assert set(labels.values()) - {self.ignored} == set(range(self.classes))
            assert labels[layout.num_values - 1] < self.classes

    def test_a_value_that_is_no_class_names_the_file(self, tmp_path):
        for number, layout in enumerate(self.record.layouts if self.refuses else ()):
            root, wrong = tmp_path / str(number), wrong_value(layout)
            write(layout, root, [0, wrong])
            with pytest.raises(ValueError, match=f'a.* has the values {wrong} in .* none of the'):
                load(layout, root)

    def test_absent_data_is_one_clear_error(self, tmp_path):
        for layout in self.record.layouts:  # empty folders do not count
            layout.image_folder(tmp_path).mkdir(parents=True, exist_ok=True)
            layout.label_folder(tmp_path).mkdir(parents=True, exist_ok=True)
        assert find_layout(self.record, tmp_path) is None
        text = describe_absence(self.record, tmp_path)
        assert text.startswith(f'{self.record.title} not found') and '\n' not in text
        assert all(str(layout.label_folder(tmp_path)) in text for layout in self.record.layouts)
        with pytest.raises(FileNotFoundError, match='none of the benchmarks is there') as error:
            make_plans([self.record], tmp_path, PIPELINE)
        assert text in str(error.value)

    def test_a_missing_file_is_named(self, tmp_path):
        for number, layout in enumerate(self.record.layouts):
            root = tmp_path / str(number)
            write(layout, root)
            by_labels = layout.dataset.get('listing') == 'labels'
            (layout.image_file if by_labels else layout.label_file)('b', root).unlink()
            kind = 'images' if by_labels else 'label maps'
            with pytest.raises(FileNotFoundError, match=rf'1 of 2 {kind}.*[/ ]b[._]'):
                make_plans([self.record], root, PIPELINE)

    def test_preparation_checks_what_the_data_set_reads(self, tmp_path):
        for number, layout in enumerate(self.record.accepted):
            root = tmp_path / str(number)
            write(layout, root, all_values(layout))
            assert all(verdict.ok for verdict in check(self.record, root, 2))
            assert '2 images, expected 3' in str(check(self.record, root, 3)[0])
            write(layout, root, [0, wrong_value(layout)])
            assert 'wrong label values' in str(check(self.record, root, 2)[-1])

    def test_the_config_reads_what_the_record_says(self):
        if not self.config:
            pytest.skip('it has no config')
        cfg = Config.fromfile(CONFIGS / self.config)
        dataset = cfg.test_dataloader.dataset.to_dict()
        expected = make_dataset_cfg(self.record.layouts[0], 'data', cfg.test_pipeline)
        assert dataset.items() <= expected.items()
        left_out = {key: expected[key] for key in expected.keys() - dataset.keys()}
        defaults = dict(ann_file='', listing='labels')
        assert left_out.items() <= defaults.items()


def all_values(layout: Layout) -> list[int]:
    """What label maps of a layout may hold."""
    return list(dict.fromkeys([*range(layout.num_values), *layout.ignored]))


def wrong_value(layout: Layout) -> int:
    """The least value that they may not hold."""
    return next(value for value in range(1 << 16) if value not in all_values(layout))


def write(layout: Layout, root: Path, values: list[int] | tuple[int, ...] = (0, 1)) -> None:
    """Two images 'a' and 'b' of one row, whose label maps hold the values."""
    label = np.array([values], np.uint16 if layout.bits == 16 else np.uint8)
    lists = [Path(root, layout.folder, name) for name in {layout.ann_file} - {''}]
    for path in {*lists, *layout.listing_files(root)}:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text('a\nb\n')
    for name in 'ab':
        for path, image in (
            (layout.image_file(name, root), Image.new('RGB', (len(values), 1))),
            (layout.label_file(name, root), Image.fromarray(label)),
        ):
            path.parent.mkdir(parents=True, exist_ok=True)
            image.save(path)


def build(layout: Layout, root: Path):
    """The data set of a layout."""
    return DATASETS.build(make_dataset_cfg(layout, root, PIPELINE))


def load(layout: Layout, root: Path) -> list[int]:
    """Labels of the first image."""
    return build(layout, root)[0]['data_samples'].gt_sem_seg.data[0, 0].tolist()


def check(record: Benchmark, root: Path, count: int) -> list:
    """Verdicts of tools/prepare_data.py --check."""
    return check_data_set(record._replace(num_images=count), root, 1, lambda **done: None)
