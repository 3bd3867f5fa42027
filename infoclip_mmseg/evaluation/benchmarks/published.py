"""Published figures: mIoU in percent, from Table 1 of InfoCLIP (arXiv 2511.15967)."""

from __future__ import annotations

from typing import NamedTuple

COLUMNS = ('ade847', 'pc459', 'ade150', 'pc59', 'voc20', 'voc20b')


class PublishedRow(NamedTuple):
    """One row of the table.

    Attributes:
        method: Name of the method.
        backbone: 'ViT-B/16' or 'ViT-L/14'.
        values: mIoU in percent by benchmark key.
    """

    method: str
    backbone: str
    values: dict[str, float]


def _row(method: str, backbone: str, *values: float) -> PublishedRow:
    return PublishedRow(method, backbone, dict(zip(COLUMNS, values)))


PUBLISHED = (
    _row('CAT-Seg', 'ViT-B/16', 12.0, 19.0, 31.8, 57.5, 94.6, 77.3),
    _row('InfoCLIP', 'ViT-B/16', 12.6, 19.5, 32.1, 58.1, 95.5, 78.1),
    _row('CAT-Seg', 'ViT-L/14', 16.0, 23.8, 37.9, 63.3, 97.0, 82.5),
    _row('InfoCLIP', 'ViT-L/14', 16.6, 24.6, 38.5, 63.5, 97.5, 83.1),
)


def published_rows(model_name: object) -> list[PublishedRow]:
    """Rows of the backbone that an open_clip model name tells; none for other backbones."""
    name = str(model_name)
    return [row for row in PUBLISHED if name.startswith(row.backbone.replace('/', '-'))]
