"""Miniatures of the original archives of the data sets, in their true formats.

Each function writes the archives below ``root/downloads`` and returns the label maps that
preparation has to make of them, by path relative to the root; they are computed here from scratch.
"""

from __future__ import annotations

import io
import json
import pickle
import tarfile
import zipfile
from pathlib import Path

import numpy as np
from PIL import Image
from scipy.io import savemat

VOCABULARIES = Path(__file__).parents[1] / 'infoclip_mmseg/datasets/vocabulary_lists'
OBJECTS = 3688
"""Object names in the index of ADE20K's full release."""

COUNTS = {
    'ade847': 3,
    'ade150': 2,
    'pc459': 2,
    'pc59': 2,
    'voc20': 3,
    'voc20b': 3,
    'coco-stuff train2017': 2,
    'coco-stuff val2017': 1,
    'coco-panoptic train2017': 2,
    'coco-panoptic val2017': 1,
    'ade150-panoptic': 2,
}
Expected = dict[str, np.ndarray]
Members = dict[str, bytes]


def encode(array: np.ndarray, kind: str, **options) -> bytes:
    image = Image.fromarray(array)
    if options.pop('palette', False):
        image.putpalette([value % 256 for value in range(768)])
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def picture(height: int, width: int, seed: int = 0) -> np.ndarray:
    small = np.random.default_rng(seed).integers(0, 256, (4, 5, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC))


def blocks(height: int, width: int, values: list[int], dtype=np.uint16) -> np.ndarray:
    """Vertical stripes of the values, cut by a diagonal so that rows differ."""
    y, x = np.mgrid[:height, :width]
    return np.array(values, dtype)[(x * len(values) // width + y // 7) % len(values)]


def jpeg(height: int, width: int, seed: int = 0) -> bytes:
    return encode(picture(height, width, seed), 'JPEG')


def zip_bytes(members: Members) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, 'w', zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return buffer.getvalue()


def write_zip(path: Path, members: Members) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(zip_bytes(members))


def write_tar(path: Path, members: Members, mode: str = 'w') -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, mode) as archive:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))


def ade_numbers() -> list[int]:
    path = VOCABULARIES.parent / 'prepare/ade847_objects.json'
    return json.loads(path.read_text())


def ade_names() -> list[str]:
    """The index's object names: its own capitals and dots, which the vocabulary does not have."""
    names = [f'-unused object {number}' for number in range(1, OBJECTS + 1)]
    vocabulary = json.loads((VOCABULARIES / 'ade847.json').read_text())
    for number, name in zip(ade_numbers(), vocabulary):
        names[number - 1] = name.replace('crt', 'CRT').replace('c p u ', 'C.P.U.')
    return names


def ade_index(files: list[tuple[str, str]], names: list[str] | None = None) -> dict:
    names = ade_names() if names is None else names
    return {
        'filename': [name for _, name in files],
        'folder': [folder for folder, _ in files],
        'scene': ['/street'] * len(files),
        'objectIsPart': np.zeros((len(names), len(files)), np.uint8),
        'objectPresence': np.ones((len(names), len(files)), np.uint16),
        'objectcounts': np.arange(len(names), dtype=np.int64),
        'objectnames': names,
        'proportionClassIsPart': np.linspace(0, 1, len(names)),
        'wordnet_found': [np.float64(1.0)] * 3,
        'wordnet_gloss': [''] * len(names),
    }


def ade_seg(numbers: np.ndarray) -> bytes:
    """A `_seg.png`: red and green hold the object, blue the instance."""
    colours = np.zeros((*numbers.shape, 3), np.uint8)
    colours[..., 0] = numbers // 256 * 10
    colours[..., 1] = numbers % 256
    colours[..., 2] = np.arange(numbers.shape[1]) % 7 * 30
    return encode(colours, 'PNG')


def ade847_members(protocol: int = 4) -> tuple[Members, Expected]:
    top = 'ADE20K_2021_17_01'
    numbers = np.array([0, *ade_numbers()])
    sizes = {1: (90, 130), 2: (601, 799), 3: (700, 520)}
    members: Members = {}
    expected: Expected = {}
    files = []
    for seed, (height, width) in sizes.items():
        folder, stem = f'{top}/images/ADE/validation/urban/place{seed}', f'ADE_val_0000000{seed}'
        labels = blocks(height, width, [0, 255, 300, 846, 65535, 11, 256])
        outside = np.where(blocks(height, width, [0, 1]) == 0, 0, 7)  # 7 is none of the 847
        objects = np.where(labels == 65535, outside, numbers[(labels % 65535) + 1])
        members[f'{folder}/{stem}.jpg'] = jpeg(height, width, seed)
        members[f'{folder}/{stem}_seg.png'] = ade_seg(objects)
        members[f'{folder}/{stem}_parts_1.png'] = ade_seg(objects * 0)
        members[f'{folder}/{stem}.json'] = b'{}'
        members[f'{folder}/{stem}/instance_000_{stem}.png'] = ade_seg(objects * 0)
        files.append((folder, f'{stem}.jpg'))
        if min(height, width) > 512:
            scale = min(height, width) / 512
            new = (512, round(width / height * 512)) if width >= height else (689, 512)
            rows = np.minimum((np.arange(new[0]) * (height / new[0])).astype(int), height - 1)
            columns = np.minimum((np.arange(new[1]) * (width / new[1])).astype(int), width - 1)
            assert scale > 1
            labels = labels[rows][:, columns]
        expected[f'{top}/annotations_detectron2/validation/{stem}.tif'] = labels
    folder = f'{top}/images/ADE/training/urban/street'
    members[f'{folder}/ADE_train_00000001.jpg'] = jpeg(30, 40)
    members[f'{folder}/ADE_train_00000001_seg.png'] = ade_seg(np.zeros((30, 40), int))
    files.append((folder, 'ADE_train_00000001.jpg'))
    members[f'{top}/index_ade20k.pkl'] = pickle.dumps(ade_index(files), protocol=protocol)
    return members, expected


def make_ade847(root: Path) -> Expected:
    members, expected = ade847_members()
    write_zip(root / 'downloads/ADE20K_2021_17_01.zip', members)
    return expected


def make_ade150(root: Path) -> Expected:
    members, expected = {}, {}
    for seed in (1, 2):
        stem, top = f'ADE_val_0000000{seed}', 'ADEChallengeData2016'
        label = blocks(40, 50 + seed, [0, 1, 150, 17], np.uint8)
        members[f'{top}/images/validation/{stem}.jpg'] = jpeg(40, 50 + seed, seed)
        members[f'{top}/annotations/validation/{stem}.png'] = encode(label, 'PNG')
        members[f'{top}/images/training/ADE_train_0000000{seed}.jpg'] = jpeg(8, 8)
        expected[f'ade/{top}/annotations/validation/{stem}.png'] = label
    write_zip(root / 'downloads/ADEChallengeData2016.zip', members)
    return expected


CONTEXT_SIZES = {'2008_000002': (37, 50), '2008_000003': (50, 33)}


def make_context_images(root: Path) -> None:
    images = {
        f'VOCdevkit/VOC2010/JPEGImages/{stem}.jpg': jpeg(*size)
        for stem, size in {**CONTEXT_SIZES, '2008_000009': (20, 20)}.items()
    }
    write_tar(root / 'downloads/VOCtrainval_03-May-2010.tar', images)
    names = '\n'.join(CONTEXT_SIZES)  # as published: no line end after the last name
    (root / 'downloads/pascalcontext_val.txt').write_text(names)


def make_pc459(root: Path) -> Expected:
    make_context_images(root)
    members: Members = {'labels.txt': b'1: accordion\n'}
    expected: Expected = {}
    for number, (stem, size) in enumerate(CONTEXT_SIZES.items()):
        values = blocks(*size, [1, 256, 257, 459, 460, 0, 301])
        buffer = io.BytesIO()
        mapped = values.astype((np.uint16, np.float64)[number])  # both occur in such files
        savemat(buffer, {'LabelMap': mapped}, do_compression=True)
        members[f'trainval/{stem}.mat'] = buffer.getvalue()
        label = values.astype(int) - 1
        label[label < 0] = 459
        expected[f'VOCdevkit/VOC2010/annotations_detectron2/pc459_val/{stem}.tif'] = label
    write_tar(root / 'downloads/trainval.tar.gz', members, 'w:gz')
    return expected


def run_lengths(mask: np.ndarray) -> list[int]:
    """Column by column, background first."""
    flat = np.concatenate([[0], mask.T.ravel().astype(int)])
    changes = np.flatnonzero(np.diff(flat))
    return np.diff([0, *changes, flat.size - 1]).tolist()


def compress(counts: list[int]) -> str:
    """COCO's string of run lengths."""
    text = ''
    for index, count in enumerate(counts):
        value = count - counts[index - 2] if index > 2 else count
        while True:
            bits, value = value & 31, value >> 5
            more = value != (-1 if bits & 16 else 0)
            text += chr(48 + bits + 32 * more)
            if not more:
                break
    return text


def context_json(compressed: bool = True) -> tuple[dict, Expected]:
    """Annotations in the `detail` API's format; the second mask covers part of the first."""
    categories = {2: 0, 45: 11, 397: 49, 458: 58}  # aeroplane, bus, table (diningtable), wood
    images, annotations, expected = [], [], {}
    for image_id, (stem, (height, width)) in enumerate(CONTEXT_SIZES.items(), 11):
        label = np.full((height, width), 255)
        for index, (category, target) in enumerate(categories.items()):
            mask = np.zeros((height, width), bool)
            mask[index * 6 : index * 6 + 12, index * 2 : width - 3 * index - 2] = True
            counts = run_lengths(mask)
            segmentation = dict(
                size=[height, width], counts=compress(counts) if compressed else counts
            )
            annotations.append(
                dict(
                    id=len(annotations),
                    image_id=image_id,
                    category_id=category,
                    segmentation=segmentation,
                    iscrowd=1,
                    area=int(mask.sum()),
                )
            )
            label[mask] = target
        images.append(
            dict(
                image_id=image_id,
                file_name=f'{stem}.jpg',
                phase='val',
                height=height,
                width=width,
            )
        )
        expected[f'VOCdevkit/VOC2010/annotations_detectron2/pc59_val/{stem}.png'] = label
    images.append(
        dict(image_id=99, file_name='2008_000009.jpg', phase='train', height=20, width=20)
    )
    annotations.append(dict(annotations[0], image_id=99))
    return dict(info={}, images=images, annos_segmentation=annotations, parts=[]), expected


def make_pc59(root: Path) -> Expected:
    make_context_images(root)
    data, expected = context_json()
    (root / 'downloads/trainval_merged.json').write_text(json.dumps(data))
    return expected


def make_voc(root: Path, background: int, folder: str) -> Expected:
    members: Members = {}
    expected: Expected = {}
    stems = {'2007_000033': (30, 50), '2007_000042': (33, 50), '2007_000061': (50, 30)}
    for stem, size in stems.items():
        values = blocks(*size, [0, 1, 20, 255, 15], np.uint8)
        members[f'VOCdevkit/VOC2012/JPEGImages/{stem}.jpg'] = jpeg(*size)
        name = f'VOCdevkit/VOC2012/SegmentationClass/{stem}.png'
        members[name] = encode(values, 'PNG', palette=True)
        label = values.astype(int) - 1
        label[values == 0], label[values == 255] = background, 255
        expected[f'VOCdevkit/VOC2012/{folder}/{stem}.png'] = label
    members['VOCdevkit/VOC2012/JPEGImages/2007_000001.jpg'] = jpeg(9, 9)
    members['VOCdevkit/VOC2012/Annotations/2007_000033.xml'] = b'<annotation/>'
    names = '\n'.join(stems) + '\n'
    members['VOCdevkit/VOC2012/ImageSets/Segmentation/val.txt'] = names.encode()
    write_tar(root / 'downloads/VOCtrainval_11-May-2012.tar', members)
    return expected


def make_voc20(root: Path) -> Expected:
    return make_voc(root, 255, 'annotations_detectron2')


def make_voc20b(root: Path) -> Expected:
    return make_voc(root, 20, 'annotations_detectron2_bg')


def make_coco_stuff(root: Path) -> Expected:
    # Value in a stuffthingmap: class; from the published list of COCO-Stuff's labels.
    classes = {0: 0, 10: 10, 12: 11, 24: 23, 26: 24, 89: 79, 91: 80, 181: 170, 255: 255}
    files = {'train2017': {9: (31, 44), 25: (40, 30)}, 'val2017': {139: (32, 48)}}
    labels: Members = {}
    expected: Expected = {}
    for split, sizes in files.items():
        images: Members = {}
        for number, size in sizes.items():
            stem = f'{number:012}'
            values = blocks(*size, list(classes), np.uint8)
            images[f'{split}/{stem}.jpg'] = jpeg(*size)
            labels[f'{split}/{stem}.png'] = encode(values, 'PNG', palette=split == 'val2017')
            label = np.vectorize(classes.get)(values)
            expected[f'coco_stuff164k/annotations/{split}/{stem}_labelTrainIds.png'] = label
        write_zip(root / f'downloads/{split}.zip', images)
    write_zip(root / 'downloads/stuffthingmaps_trainval2017.zip', labels)
    return expected


def id_colours(ids: np.ndarray) -> np.ndarray:
    """COCO's id maps: red + 256 green + 65536 blue."""
    return np.stack([ids & 255, ids >> 8 & 255, ids >> 16], -1).astype(np.uint8)


def coco_panoptic_members(split: str, sizes: dict[int, tuple[int, int]]) -> tuple[Members, Members]:
    """Images; id maps and JSON file of a split. Ids go beyond one and two bytes."""
    images, maps, infos, annotations = {}, {}, [], []
    for number, (height, width) in sizes.items():
        stem, ids = f'{number:012}', blocks(height, width, [0, 7, 300, 70000], np.int64)
        images[f'{split}/{stem}.jpg'] = jpeg(height, width)
        maps[f'panoptic_{split}/{stem}.png'] = encode(id_colours(ids), 'PNG')
        infos.append(dict(id=number, file_name=f'{stem}.jpg', height=height, width=width))
        segments = [
            dict(id=i, category_id=c, iscrowd=0, area=int((ids == i).sum()), bbox=[0, 0, 9, 9])
            for i, c in ((7, 1), (300, 1), (70000, 133))
        ]
        annotations.append(dict(image_id=number, file_name=f'{stem}.png', segments_info=segments))
    categories = [dict(id=k, name=f'class {k}', isthing=int(k <= 80)) for k in range(1, 134)]
    content = dict(images=infos, annotations=annotations, categories=categories)
    maps['panoptic.json'] = json.dumps(content).encode()
    return images, maps


def make_coco_panoptic(root: Path) -> Expected:
    """The archive of annotations holds JSON files, and archives of the id maps."""
    files = {'train2017': {9: (31, 44), 25: (40, 30)}, 'val2017': {139: (32, 48)}}
    outer: Members = {}
    expected: Expected = {}
    for split, sizes in files.items():
        images, maps = coco_panoptic_members(split, sizes)
        write_zip(root / f'downloads/{split}.zip', images)
        outer[f'annotations/panoptic_{split}.json'] = maps.pop('panoptic.json')
        for name, data in maps.items():
            pixels = np.asarray(Image.open(io.BytesIO(data)))
            expected[f'coco/annotations/{name}'] = pixels
        extra = {f'__MACOSX/panoptic_{split}/._000000000009.png': b'?'}
        outer[f'annotations/panoptic_{split}.zip'] = zip_bytes({**maps, **extra})
    write_zip(root / 'downloads/panoptic_annotations_trainval2017.zip', outer)
    return expected


INSTANCE_TO_SCENE = {1: 8, 4: 13, 5: 15, 100: 150}
"""Some of the lines of the Places Challenge's mapping: bed, person, door, flag."""


def ade_panoptic_maps(seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Label map, instance map, and the ids (H, W) that come of them, pixel by pixel.

    Labels: none, wall, bed, mountain, flag. Instances lie on stuff, on things and on nothing; the
    bed of the label map has pixels without an instance.
    """
    height, width = 40, 50 + seed
    labels = blocks(height, width, [0, 1, 8, 17, 150], np.uint8)
    instances = np.zeros((height, width, 3), np.uint8)
    for number, (category, y, x) in enumerate([(1, 3, 20), (4, 10, 0), (4, 25, 30), (100, 5, 45)]):
        instances[y : y + 9, x : x + 12] = category, number + 1 + 50 * seed, 0
    ids = np.zeros((height, width), np.int64)
    for y, x in np.ndindex(height, width):
        category, number, _ = instances[y, x].tolist()
        if number:
            ids[y, x] = 1000 * INSTANCE_TO_SCENE[category] + number
        elif labels[y, x] in (1, 17):
            ids[y, x] = 1000 * int(labels[y, x])
    return labels, instances, ids


def make_ade150_panoptic(root: Path) -> Expected:
    scenes, places, expected = {}, {}, {}
    for seed in (1, 2):
        stem, top = f'ADE_val_0000000{seed}', 'ADEChallengeData2016'
        labels, instances, ids = ade_panoptic_maps(seed)
        scenes[f'{top}/images/validation/{stem}.jpg'] = jpeg(40, 50 + seed, seed)
        scenes[f'{top}/annotations/validation/{stem}.png'] = encode(labels, 'PNG')
        places[f'./annotations_instance/validation/{stem}.png'] = encode(instances, 'PNG')
        places[f'annotations_instance/training/ADE_train_0000000{seed}.png'] = b'?'
        expected[f'ade/{top}/ade20k_panoptic_val/{stem}.png'] = id_colours(ids)
    write_zip(root / 'downloads/ADEChallengeData2016.zip', scenes)
    write_tar(root / 'downloads/annotations_instance.tar', places)
    return expected


MAKERS = {
    'coco-panoptic': make_coco_panoptic,
    'ade150-panoptic': make_ade150_panoptic,
    'coco-stuff': make_coco_stuff,
    'ade150': make_ade150,
    'ade847': make_ade847,
    'pc459': make_pc459,
    'pc59': make_pc59,
    'voc20': make_voc20,
    'voc20b': make_voc20b,
}
