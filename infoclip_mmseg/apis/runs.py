"""A folder of results that several programs fill: shards, going on after a stop, one summary.

An image is finished when its ``pred/STEM.json`` is there, which is written last; so what a killed
program left is told from what it finished. Every file appears whole.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from infoclip_mmseg.annotations import Region, Regions, make_writer
from infoclip_mmseg.annotations.formats import rle_mask
from infoclip_mmseg.apis.image_sources import Source
from infoclip_mmseg.apis.prediction import write_json
from infoclip_mmseg.apis.segments import coco_panoptic
from infoclip_mmseg.apis.words import Words


class Shard(NamedTuple):
    """Part ``number`` of ``total``, from 1."""

    number: int
    total: int

    def __str__(self) -> str:
        return f'{self.number}-of-{self.total}'

    def take(self, sources: Sequence[Source]) -> list[Source]:
        """Every ``total``-th source."""
        return list(sources[self.number - 1 :: self.total])


def find_shard(text: str | None, environ: Mapping[str, str] = os.environ) -> Shard:
    """The shard of 'i/n', or of torchrun's RANK and WORLD_SIZE, or all of it.

    A ValueError for what is no such pair.
    """
    if text is None:
        if 'RANK' in environ and 'WORLD_SIZE' in environ:
            return Shard(int(environ['RANK']) + 1, int(environ['WORLD_SIZE']))
        return Shard(1, 1)
    first, _, second = text.partition('/')
    if first.isdigit() and second.isdigit() and 1 <= int(first) <= int(second):
        return Shard(int(first), int(second))
    raise ValueError(f'--shard must be i/n with i from 1 to n, such as 2/8, got {text!r}')


class Run:
    """What one program does of a run.

    Args:
        folder: Of all results.
        settings: What the results depend on: model, words, task. Going on with others is refused.
        words: The words, as planned.
        shard: The part of this program.
        resume: Whether images that are finished are passed over.

    Raises:
        ValueError: ``resume``, and the folder has results of other settings.
    """

    def __init__(
        self,
        folder: Path,
        settings: dict[str, Any],
        words: Words,
        shard: Shard,
        resume: bool = False,
    ) -> None:
        self.folder, self.words, self.shard, self.resume = folder, words, shard, resume
        self.settings = json.loads(json.dumps(settings))
        self.began = time.monotonic()
        self.images = self.pixels = 0
        self.areas = np.zeros(len(words.names), np.int64)
        self.skipped: list[dict[str, str]] = []
        noted = folder / 'run.json'
        if resume and noted.is_file():
            before = json.loads(noted.read_text(encoding='utf-8'))
            other = [key for key in self.settings if before.get(key) != self.settings[key]]
            if other:
                raise ValueError(
                    f'{folder} has results with another {", ".join(other)}: '
                    f'{before.get(other[0])!r}, now {self.settings[other[0]]!r}; choose another '
                    '--out, or run without --resume'
                )
        folder.mkdir(parents=True, exist_ok=True)
        write_json(noted, self.settings)

    @property
    def part(self) -> Path:
        """File of what this program counted."""
        return self.folder / 'parts' / f'{self.shard}.json'

    def pending(self, sources: Sequence[Source]) -> list[Source]:
        """The sources of this shard that are not finished; finished ones are counted."""
        self.part.unlink(missing_ok=True)
        left = []
        for source in self.shard.take(sources):
            done = self.folder / 'pred' / f'{source.stem}.json'
            if self.resume and not source.is_video and done.is_file():
                self.add_file(json.loads(done.read_text(encoding='utf-8')))
            else:
                left.append(source)
        return left

    def add_file(self, content: Mapping[str, Any]) -> None:
        """Count an image by what its JSON file holds."""
        self.images += 1
        self.pixels += content['height'] * content['width']
        for entry in content.get('classes', ()):
            self.areas[entry['index']] += entry['pixels']
        for entry in content.get('segments_info', ()):
            self.areas[entry['label']] += entry['area']

    def skip(self, name: str, error: Exception) -> None:
        """Note an image that could not be read."""
        self.skipped.append(dict(image=name, error=str(error)))

    def found(self) -> list[dict[str, Any]]:
        """Index, name and share of all pixels of what was found, largest first."""
        order = [int(i) for i in np.argsort(-self.areas, kind='stable') if self.areas[i]]
        shares, names = self.areas / max(1, self.pixels), self.words.names
        return [dict(index=i, name=names[i], share=round(float(shares[i]), 6)) for i in order]

    def close(self) -> bool:
        """Write this program's part, and ``summary.json`` once all parts are there; whether."""
        seconds = round(time.monotonic() - self.began, 2)
        counted = dict(images=self.images, pixels=self.pixels, seconds=seconds)
        content = dict(areas=self.areas.tolist(), skipped=self.skipped, **counted)
        write_json(self.part, dict(settings=self.settings, **content))
        total = self.shard.total
        files = [self.part.with_name(f'{Shard(n + 1, total)}.json') for n in range(total)]
        if not all(file.is_file() for file in files):
            return False
        parts = [json.loads(file.read_text(encoding='utf-8')) for file in files]
        if any(part['settings'] != self.settings for part in parts):
            return False
        self.images, self.pixels = (
            sum(part[key] for part in parts) for key in ('images', 'pixels')
        )
        self.areas = np.sum([part['areas'] for part in parts], axis=0)
        self.skipped = [entry for part in parts for entry in part['skipped']]
        summary = dict(
            **self.settings,
            images=self.images,
            seconds=max(part['seconds'] for part in parts),
            found=self.found(),
            skipped=self.skipped,
        )
        write_json(self.folder / 'summary.json', summary)
        return True


def read_regions(path: Path) -> Regions:
    """Regions of an image from its ``pred/STEM.json`` and the PNG beside it."""
    content = json.loads(path.read_text(encoding='utf-8'))
    pixels = np.asarray(Image.open(path.with_suffix('.png')))
    if 'classes' in content:
        background = content['background']
        regions = [
            Region(entry['index'], entry['name'], pixels == entry['index'], entry['mean_score'])
            for entry in sorted(content['classes'], key=lambda entry: entry['index'])
            if entry['index'] != background
        ]
    else:
        ids = pixels.astype(np.int64) @ np.array([1, 256, 65536])
        regions = [
            Region(entry['label'], entry['class'], _mask(entry, ids), entry['score'])
            for entry in content['segments_info']
        ]
    size = content['height'], content['width']
    return Regions(content['image'], path.stem, size, regions)


def _mask(entry: Mapping[str, Any], ids: NDArray[np.int64]) -> NDArray[np.bool_]:
    runs = entry.get('segmentation')
    return ids == entry['id'] if runs is None else rle_mask(runs)


def annotate(folder: Path, name: str, words: Words) -> Path:
    """Write the results of a folder as annotations of a format; see :func:`make_writer`."""
    writer = make_writer(name, folder, words.classes, words.palette)
    for path in sorted((folder / 'pred').glob('*.json')):
        writer.add(read_regions(path))
    return writer.close()


def join_panoptic(folder: Path, names: Sequence[str], things: Sequence[int]) -> Path:
    """Write ``panoptic.json`` of all results of a folder, in COCO's form."""
    paths = sorted((folder / 'pred').glob('*.json'))
    results = {path.stem: json.loads(path.read_text(encoding='utf-8')) for path in paths}
    write_json(folder / 'panoptic.json', coco_panoptic(results, names, things))
    return folder / 'panoptic.json'
