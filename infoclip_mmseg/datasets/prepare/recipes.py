"""What each data set is made of: records of its parts, archives, conversions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from infoclip_mmseg.datasets import benchmarks as folders
from infoclip_mmseg.datasets.benchmarks import BENCHMARKS, COCO_SPLITS, Benchmark
from infoclip_mmseg.datasets.prepare import ade847, conversions
from infoclip_mmseg.datasets.prepare.archives import Source
from infoclip_mmseg.datasets.prepare.parallel import Task

FindTasks = Callable[[Path], list[Task]]


@dataclass(frozen=True)
class Recipe:
    """How a data set is prepared.

    Attributes:
        name: Name on the command line.
        parts: What is prepared.
        sources: What has to be fetched.
        find_tasks: Gives the conversions below a data root; None where nothing is converted.
    """

    name: str
    parts: tuple[Benchmark, ...]
    sources: tuple[Source, ...]
    find_tasks: FindTasks | None = None

    def is_complete(self, root: Path) -> bool:
        """Whether one layout of each part has some image and as many label maps as needed."""
        return all(
            any(
                layout.image_names(root) and len(layout.label_names(root)) >= part.num_images
                for layout in part.accepted
            )
            for part in self.parts
        )


_COCO_IMAGES = tuple(
    Source(
        f'{split}.zip',
        (f'http://images.cocodataset.org/zips/{split}.zip',),
        f'{folders.COCO_STUFF}/images',
        (split,),
        about,
        rf'{split}/[^/]+\.jpg$',
        num_bytes,
        ('md5', digest),
    )
    for split, about, num_bytes, digest in (
        ('train2017', '18 GB', 19336861798, 'cced6f7f71b7629ddf16f17bbcfab6b2'),
        ('val2017', '0.8 GB', 815585330, '442b8da7639aecaf257c1dceb8ba8c80'),
    )
)
_COCO_LABELS = Source(
    'stuffthingmaps_trainval2017.zip',
    (
        'http://calvin.inf.ed.ac.uk/wp-content/uploads/data/cocostuffdataset/'
        'stuffthingmaps_trainval2017.zip',
    ),
    f'{folders.COCO_STUFF}/annotations',
    ('train2017', 'val2017'),
    '0.7 GB',
    r'(train|val)2017/[^/]+\.png$',
)
_ADE_CHALLENGE = Source(
    'ADEChallengeData2016.zip',
    ('http://data.csail.mit.edu/places/ADEchallenge/ADEChallengeData2016.zip',),
    'ade',
    tuple(f'ADEChallengeData2016/{kind}/validation' for kind in ('images', 'annotations')),
    '0.9 GB',
    r'ADEChallengeData2016/((images|annotations)/validation/[^/]+\.(jpg|png)|[^/]+\.txt)$',
    digest=('md5', '7328b3957e407ddae1d3cbf487f149ef'),
)
_ADE_FULL = Source(
    'ADE20K_2021_17_01.zip',
    (),
    '.',
    (f'{folders.ADE847}/index_ade20k.pkl', f'{folders.ADE847}/images/ADE/validation'),
    'some GB',
    r'ADE20K_2021_17_01/(index_ade20k\.pkl$|images/ADE/validation/.+(\d\.jpg|\d_seg\.png)$)',
    registration=(
        'ADE20K asks for a registration:\n'
        'https://groups.csail.mit.edu/vision/datasets/ADE20K/request_data/\n'
        'The address of the full release (2021_17_01) comes by mail. Rename the archive if its\n'
        'name is another.'
    ),
)
_VOC = 'http://host.robots.ox.ac.uk/pascal/VOC'
_VOC2010 = Source(
    'VOCtrainval_03-May-2010.tar',
    (f'{_VOC}/voc2010/VOCtrainval_03-May-2010.tar',),
    '.',
    (f'{folders.VOC2010}/JPEGImages',),
    '1.3 GB',
    r'VOCdevkit/VOC2010/JPEGImages/[^/]+\.jpg$',
    digest=('md5', 'da459979d0c395079b5c75ee67908abb'),
)
_VOC2012 = Source(
    'VOCtrainval_11-May-2012.tar',
    (
        f'{_VOC}/voc2012/VOCtrainval_11-May-2012.tar',
        'https://data.pjreddie.com/files/VOCtrainval_11-May-2012.tar',
    ),
    '.',
    (f'{folders.VOC2012}/JPEGImages', f'{folders.VOC2012}/ImageSets/Segmentation/val.txt'),
    '2 GB',
    r'VOCdevkit/VOC2012/((JPEGImages|SegmentationClass)/[^/]+|ImageSets/Segmentation/[^/]+)$',
    1999639040,
    ('md5', '6cd6e144f989b92b3379bac3b3de84fd'),
)
_CONTEXT_MAT = Source(
    'trainval.tar.gz',
    (
        'https://roozbehm.info/pascal-context/trainval.tar.gz',
        'https://cs.stanford.edu/~roozbeh/pascal-context/trainval.tar.gz',
    ),
    folders.VOC2010,
    ('trainval',),
    '31 MB',
    r'(trainval/[^/]+\.mat|[^/]+\.txt)$',
)
_CONTEXT_JSON = Source(
    'trainval_merged.json',
    ('https://codalabuser.blob.core.windows.net/public/trainval_merged.json',),
    folders.VOC2010,
    ('trainval_merged.json',),
    'some hundred MB',
    digest=('sha1', '169325d9f7e9047537fedca7b04de4dddf10b881'),
)
_CONTEXT_LIST = Source(
    'pascalcontext_val.txt',
    ('https://raw.githubusercontent.com/cvlab-kaist/CAT-Seg/main/datasets/pascalcontext_val.txt',),
    folders.VOC2010,
    ('pascalcontext_val.txt',),
    '61 kB, the 5,104 names',
    num_bytes=61247,
    instead='ImageSets/SegmentationContext/val.txt',
)

_BENCHMARKS: dict[str, tuple[tuple[Source, ...], FindTasks | None]] = {
    'ade150': ((_ADE_CHALLENGE,), None),
    'ade847': ((_ADE_FULL,), ade847.find_tasks),
    'pc459': ((_VOC2010, _CONTEXT_MAT, _CONTEXT_LIST), conversions.find_pc459_tasks),
    'pc59': ((_VOC2010, _CONTEXT_JSON, _CONTEXT_LIST), conversions.find_pc59_tasks),
    'voc20': ((_VOC2012,), partial(conversions.find_voc_tasks, 'voc20')),
    'voc20b': ((_VOC2012,), partial(conversions.find_voc_tasks, 'voc20b')),
}
RECIPES: dict[str, Recipe] = {
    'coco-stuff': Recipe(
        'coco-stuff', COCO_SPLITS, (*_COCO_IMAGES, _COCO_LABELS), conversions.find_coco_stuff_tasks
    ),
    **{key: Recipe(key, (BENCHMARKS[key],), *rest) for key, rest in _BENCHMARKS.items()},
}
