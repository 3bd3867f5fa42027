"""Every data set of the package through the shared contract."""

from __future__ import annotations

from dataset_contract import DatasetContract, build, write

from infoclip_mmseg.datasets.benchmarks import BENCHMARKS, COCO_SPLITS, Benchmark, Layout

VOC2010, VOC2012 = 'VOCdevkit/VOC2010', 'VOCdevkit/VOC2012'


class TestA847(DatasetContract):
    record = BENCHMARKS['ade847']
    classes = 847
    stored = {
        f'{folder}/annotations_detectron2/validation': {
            **{0: 0, 255: 255, 300: 300, 846: 846, 65535: 65535}
        }
        for folder in ('ADE20K_2021_17_01', 'ade/ADE20K_2021_17_01')
    }
    ignored = 65535
    config = 'ade847_640.py'


class TestPC459(DatasetContract):
    record = BENCHMARKS['pc459']
    classes = 459
    stored = {
        f'{VOC2010}/annotations_detectron2/pc459_val': {
            **{0: 0, 255: 255, 458: 458, 459: 65535, 65535: 65535}
        }
    }
    ignored = 65535
    refuses = False  # whatever lies outside has no label
    config = 'pc459_640.py'


class TestA150(DatasetContract):
    record = BENCHMARKS['ade150']
    classes = 150
    stored = {
        f'{folder}/{labels}/validation': values
        for folder in ('ade/ADEChallengeData2016', 'ADEChallengeData2016')
        for labels, values in (
            ('annotations', {0: 255, 1: 0, 150: 149}),
            ('annotations_detectron2', {0: 0, 149: 149, 255: 255}),
        )
    }
    refuses = False  # mmseg's own data set
    config = 'ade20k_640.py'


class TestPC59(DatasetContract):
    record = BENCHMARKS['pc59']
    classes = 59
    stored = {
        f'{VOC2010}/SegmentationClassContext': {0: 255, 1: 0, 59: 58},
        f'{VOC2010}/annotations_detectron2/pc59_val': {0: 0, 58: 58, 255: 255},
    }
    config = 'pc59_640.py'


class TestPAS20(DatasetContract):
    record = BENCHMARKS['voc20']
    classes = 20
    stored = {
        f'{VOC2012}/SegmentationClass': {0: 255, 1: 0, 20: 19, 255: 255},
        f'{VOC2012}/annotations_detectron2/val': {0: 0, 19: 19, 255: 255},
        f'{VOC2012}/annotations_detectron2': {0: 0, 19: 19, 255: 255},
    }
    config = 'voc20_640.py'

    def test_names_and_colours_are_without_the_background(self, tmp_path):
        write(self.record.made, tmp_path)
        meta = build(self.record.made, tmp_path).metainfo
        assert meta['classes'][14] == 'person' and meta['palette'][0] == [128, 0, 0]


class TestPAS20b(DatasetContract):
    record = BENCHMARKS['voc20b']
    classes = 21
    stored = {
        f'{VOC2012}/SegmentationClass': {0: 20, 1: 0, 20: 19, 255: 255},
        f'{VOC2012}/annotations_detectron2_bg/val': {0: 0, 19: 19, 20: 20, 255: 255},
        f'{VOC2012}/annotations_detectron2_bg': {0: 0, 19: 19, 20: 20, 255: 255},
    }
    config = 'voc20b_640.py'

    def test_the_background_comes_last(self, tmp_path):
        write(self.record.made, tmp_path)
        meta = build(self.record.made, tmp_path).metainfo
        assert meta['classes'][20] == 'background'
        assert meta['palette'][20] == [0, 0, 0] and meta['palette'][0] == [128, 0, 0]
        assert len(meta['prompt_names']) == 59 and meta['fold_from'] == 20


class TestCOCOStuffTrain(DatasetContract):
    record = COCO_SPLITS[0]
    classes = 171
    stored = {'coco_stuff164k/annotations/train2017': {0: 0, 170: 170, 255: 255}}
    refuses = False  # mmseg's own data set


class TestCOCOStuffVal(DatasetContract):
    record = COCO_SPLITS[1]
    classes = 171
    stored = {'coco_stuff164k/annotations/val2017': {0: 0, 170: 170, 255: 255}}
    refuses = False
    config = 'coco-stuff_384x384.py'


COCO_OBJECT = dict(type='COCOObjectDataset')
CONVERTED = dict(COCO_OBJECT, label_map=None, seg_map_suffix='_instanceTrainIds.png')


class TestCOCOObject(DatasetContract):
    record = Benchmark(
        key='coco_object',
        title='COCO-Object',
        num_images=5000,
        vocabulary='clearclip_coco_object',
        layouts=(
            Layout('coco', 'images', 'labels', COCO_OBJECT, 171, (255,), '_labelTrainIds.png'),
            Layout('coco', 'images', 'converted', CONVERTED, 81, (), '_instanceTrainIds.png'),
        ),
    )
    classes = 81
    stored = {
        'coco/labels': {0: 1, 9: 10, 79: 80, 80: 0, 170: 0, 255: 0},
        'coco/converted': {0: 0, 1: 1, 10: 10, 80: 80},
    }


class TestFoldersAndNames(DatasetContract):
    """A data set that needs neither a class nor anything but names and folders."""

    record = Benchmark(
        key='own',
        title='Own',
        num_images=2,
        vocabulary='clearclip_cityscapes',
        layouts=(
            Layout(
                'own',
                'images',
                'labels',
                dict(type='VocabularyDataset', vocabulary='clearclip_cityscapes'),
                19,
                (255,),
            ),
        ),
    )
    classes = 19
    stored = {'own/labels': {0: 0, 18: 18, 255: 255}}
