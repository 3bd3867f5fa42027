"""The HTML of segments: the panel of a result, a table of them, files (pure functions).

Legend: h w pixels.
"""

from __future__ import annotations

import base64
import json
from typing import Any

import numpy as np

from infoclip_mmseg.apis.segments import Segments, coco_panoptic, draw_ids
from infoclip_mmseg.demo.engine import SegmentOutcome
from infoclip_mmseg.demo.result import MAX_ENTRIES, data_uri, escape, map_entry, render_panel
from infoclip_mmseg.utils.palette import VOID, colour_labels, make_palette
from infoclip_mmseg.visualization.legend import Entry
from infoclip_mmseg.visualization.overlay import outline


def render_segments(outcome: SegmentOutcome) -> str:
    """The result panel of segments: outlines, a legend entry and a row of the table a segment.

    Panoptic segments come by their area, instances, which may overlap, by their score.
    """
    found = outcome.found
    segments = list(found.segments)
    if found.task == 'panoptic':
        segments.sort(key=lambda segment: -segment['area'])
    palette = [list(VOID), *make_palette(len(segments))]
    shown = segments[:MAX_ENTRIES]
    entries = [
        Entry(s['id'], s['class'], palette[s['id']], s['area'] / found.ids.size) for s in shown
    ]
    left_out = len(segments) - len(shown)
    return render_panel(
        outcome,
        found.ids,
        outline(colour_labels(found.ids, palette), found.ids, palette),
        entries,
        maps=[[map_entry('Mask', _mask_of(found, segment))] for segment in shown],
        rest=f'and {left_out} more segments, which the files have' if left_out else '',
        hint='Click a segment: its mask.' if segments else 'No segment was found.',
        below=_table(shown, entries) + _files(found),
    )


def _mask_of(found: Segments, segment: dict[str, Any]) -> np.ndarray:
    mask = segment['mask'] if 'mask' in segment else found.ids == segment['id']
    return mask.astype(np.float32)


def _table(segments: list[dict[str, Any]], entries: list[Entry]) -> str:
    if not segments:
        return ''
    heads = ''.join(f'<th>{head}</th>' for head in ('Class', 'Kind', 'Score', 'Area, pixels'))
    rows = ''.join(
        f'<tr><td><i style="background:{entry.code}"></i>{escape(entry.name)}</td>'
        f'<td>{"thing" if segment["is_thing"] else "stuff"}</td>'
        f'<td>{segment["score"]:.2f}</td><td>{segment["area"]:,}</td></tr>'
        for segment, entry in zip(segments, entries)
    )
    return f'<table class="ic-table"><thead><tr>{heads}</tr></thead><tbody>{rows}</tbody></table>'


def _files(found: Segments) -> str:
    """Links that hold the files of tools/infer.py."""
    links = [
        ('id map', f'{found.stem}.png', data_uri(draw_ids(found.ids))),
        ('segments', f'{found.stem}.json', _json_uri(found.to_dict())),
    ]
    if found.task == 'panoptic':
        content = coco_panoptic({found.stem: found.to_dict()}, found.classes, found.things)
        links.append(('COCO panoptic', 'panoptic.json', _json_uri(content)))
    shown = ' · '.join(
        f'<a href="{uri}" download="{escape(name)}">{title} ({name.rsplit(".", 1)[1].upper()})</a>'
        for title, name, uri in links
    )
    return f'<p class="ic-files">Download: {shown}</p>'


def _json_uri(content: dict[str, Any]) -> str:
    text = json.dumps(content, ensure_ascii=False, indent=1).encode(errors='backslashreplace')
    return f'data:application/json;base64,{base64.b64encode(text).decode()}'
