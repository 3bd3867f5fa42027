"""What has to be fetched for the data sets: addresses, sizes, checksums, where it goes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from infoclip_mmseg.datasets import benchmarks as folders

DOWNLOADS = 'downloads'
"""Folder of the archives below the data root."""


@dataclass(frozen=True)
class Source:
    """A file to fetch.

    Attributes:
        filename: Name in the folder of downloads.
        urls: Addresses, the first is the official one; empty where a registration is needed.
        folder: Where it is unpacked (or moved, if it is no archive), relative to the data root.
        provides: Files and folders that are there afterwards, relative to the data root.
        about: Size as people read it.
        members: Regular expression of the archive members that are needed, from their start.
        num_bytes: Exact size, where known.
        digest: Algorithm and hexadecimal digest, where known.
        registration: What to do by hand to get it.
        instead: Files that make it unnecessary, likewise.
    """

    filename: str
    urls: tuple[str, ...]
    folder: str
    provides: tuple[str, ...]
    about: str
    members: str = ''
    num_bytes: int | None = None
    digest: tuple[str, str] | None = None
    registration: str = ''
    instead: tuple[str, ...] = ()

    @property
    def is_archive(self) -> bool:
        """Whether it is unpacked rather than moved."""
        return self.filename.endswith(('.zip', '.tar', '.tar.gz', '.tgz'))

    def is_there(self, root: Path) -> bool:
        """Whether all that it provides exists below a data root; folders must hold something."""
        return _exist(root, self.provides) or (bool(self.instead) and _exist(root, self.instead))

    def describe(self, root: Path) -> str:
        """Where it comes from and where it has to be put, a few lines."""
        target = root / DOWNLOADS / self.filename
        facts = [self.about]
        facts += [f'{self.num_bytes:,} bytes'] if self.num_bytes else []
        facts += [f'{self.digest[0]} {self.digest[1]}'] if self.digest else []
        lines = [f'{self.filename} ({", ".join(facts)})']
        lines += [f'    from  {url}' for url in self.urls]
        lines += [f'    {line}' for line in self.registration.splitlines()]
        lines += [f'    to    {target}']
        have = ' and '.join(str(root / path) for path in self.provides)
        lines += [f'    or have {have} already']
        return '\n'.join(lines)


def _exist(root: Path, names: tuple[str, ...]) -> bool:
    paths = [root / name for name in names]
    return all(p.is_file() or (p.is_dir() and any(p.iterdir())) for p in paths)


_VOC = 'http://host.robots.ox.ac.uk/pascal/VOC'

COCO_TRAIN = Source(
    'train2017.zip',
    ('http://images.cocodataset.org/zips/train2017.zip',),
    f'{folders.COCO_STUFF}/images',
    (f'{folders.COCO_STUFF}/images/train2017',),
    '18 GB',
    r'train2017/[^/]+\.jpg$',
    19336861798,
    ('md5', 'cced6f7f71b7629ddf16f17bbcfab6b2'),
)
COCO_VAL = Source(
    'val2017.zip',
    ('http://images.cocodataset.org/zips/val2017.zip',),
    f'{folders.COCO_STUFF}/images',
    (f'{folders.COCO_STUFF}/images/val2017',),
    '0.8 GB',
    r'val2017/[^/]+\.jpg$',
    815585330,
    ('md5', '442b8da7639aecaf257c1dceb8ba8c80'),
)
COCO_LABELS = Source(
    'stuffthingmaps_trainval2017.zip',
    (
        'http://calvin.inf.ed.ac.uk/wp-content/uploads/data/cocostuffdataset/'
        'stuffthingmaps_trainval2017.zip',
    ),
    f'{folders.COCO_STUFF}/annotations',
    (f'{folders.COCO_STUFF}/annotations/train2017', f'{folders.COCO_STUFF}/annotations/val2017'),
    '0.7 GB',
    r'(train|val)2017/[^/]+\.png$',
)
ADE_CHALLENGE = Source(
    'ADEChallengeData2016.zip',
    ('http://data.csail.mit.edu/places/ADEchallenge/ADEChallengeData2016.zip',),
    'ade',
    (f'{folders.ADE150}/images/validation', f'{folders.ADE150}/annotations/validation'),
    '0.9 GB',
    r'ADEChallengeData2016/((images|annotations)/validation/[^/]+\.(jpg|png)|[^/]+\.txt)$',
    digest=('md5', '7328b3957e407ddae1d3cbf487f149ef'),
)
ADE_FULL = Source(
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
VOC2010 = Source(
    'VOCtrainval_03-May-2010.tar',
    (f'{_VOC}/voc2010/VOCtrainval_03-May-2010.tar',),
    '.',
    (f'{folders.VOC2010}/JPEGImages',),
    '1.3 GB',
    r'VOCdevkit/VOC2010/JPEGImages/[^/]+\.jpg$',
    digest=('md5', 'da459979d0c395079b5c75ee67908abb'),
)
VOC2012 = Source(
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
CONTEXT_MAT = Source(
    'trainval.tar.gz',
    (
        'https://roozbehm.info/pascal-context/trainval.tar.gz',
        'https://cs.stanford.edu/~roozbeh/pascal-context/trainval.tar.gz',
    ),
    folders.VOC2010,
    (f'{folders.VOC2010}/trainval',),
    '31 MB',
    r'(trainval/[^/]+\.mat|[^/]+\.txt)$',
)
CONTEXT_JSON = Source(
    'trainval_merged.json',
    ('https://codalabuser.blob.core.windows.net/public/trainval_merged.json',),
    folders.VOC2010,
    (f'{folders.VOC2010}/trainval_merged.json',),
    'some hundred MB',
    digest=('sha1', '169325d9f7e9047537fedca7b04de4dddf10b881'),
)
CONTEXT_LIST = Source(
    'pascalcontext_val.txt',
    ('https://raw.githubusercontent.com/cvlab-kaist/CAT-Seg/main/datasets/pascalcontext_val.txt',),
    folders.VOC2010,
    (f'{folders.VOC2010}/pascalcontext_val.txt',),
    '61 kB, the 5,104 names',
    num_bytes=61247,
    instead=(f'{folders.VOC2010}/ImageSets/SegmentationContext/val.txt',),
)
