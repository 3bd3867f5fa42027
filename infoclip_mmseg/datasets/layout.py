"""Where a data set lies on disk and what its label maps hold."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

Cfg = dict[str, Any]


class Layout(NamedTuple):
    """One way in which a data set may lie below the root of the data.

    Attributes:
        folder: Its folder below the root.
        images: Folder of the images below that.
        labels: Folder of the label maps below that.
        dataset: Config of the data set that reads it, without paths and pipeline.
        num_values: Label maps hold 0..num_values - 1,
        ignored: and these values, which are no class.
        label_suffix: What follows an image's name in the name of its label map.
        image_suffix: What follows it in the name of the image.
        ann_file: File with the images' names below the folder, as of ``BaseSegDataset``; '' takes
            all files.
        listings: Files below the folder any of which tells the names of the images when the set is
            prepared and checked; a single one has to be there. None: all images.
    """

    folder: str
    images: str
    labels: str
    dataset: Cfg
    num_values: int
    ignored: tuple[int, ...] = ()
    label_suffix: str = '.png'
    image_suffix: str = '.jpg'
    ann_file: str = ''
    listings: tuple[str, ...] = ()

    @property
    def bits(self) -> int:
        """Bits of a pixel that the label maps need: 8 or 16."""
        return 8 if max(self.num_values - 1, *self.ignored, 0) < 1 << 8 else 16

    def image_folder(self, root: str | Path = '') -> Path:
        """Folder of the images below the root of the data."""
        return Path(root, self.folder, self.images)

    def label_folder(self, root: str | Path = '') -> Path:
        """Folder of the label maps below the root of the data."""
        return Path(root, self.folder, self.labels)

    def image_file(self, name: str, root: str | Path = '') -> Path:
        """Image of a name."""
        return self.image_folder(root) / f'{name}{self.image_suffix}'

    def label_file(self, name: str, root: str | Path = '') -> Path:
        """Label map of a name."""
        return self.label_folder(root) / f'{name}{self.label_suffix}'

    def listing_files(self, root: str | Path = '') -> list[Path]:
        """Where lists of the names may be."""
        return [Path(root, self.folder, name) for name in self.listings]

    def is_there(self, root: str | Path) -> bool:
        """Whether its folders are below the root of the data, and label maps in them."""
        images, labels = self.image_folder(root), self.label_folder(root)
        there = (images, labels, Path(root, self.folder, self.ann_file))
        if not all(path.exists() for path in there):
            return False
        return any(path.suffix in ('.png', '.tif') for path in labels.iterdir())
