"""The model card of a folder on the Hub: what it is, on what it was trained, what was measured."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from infoclip_mmseg.utils.files import write_text
from infoclip_mmseg.utils.resources import resources

USE = """```python
from infoclip_mmseg import OpenVocabInferencer

segment = OpenVocabInferencer.from_pretrained('{name}')
[found] = segment('photo.jpg', classes=['cat', 'red car, automobile'])
```"""


def index_entry(name: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Entry of a config in configs/metafile.yml, and that of its collection; empty without one."""
    index = yaml.safe_load((resources() / 'configs/metafile.yml').read_text(encoding='utf-8'))
    entry: dict[str, Any] = next(
        (one for one in index['Models'] if one['Name'].split('/')[-1] == name), {}
    )
    collection = entry.get('In Collection')
    found = [one for one in index['Collections'] if one['Name'] == collection]
    return entry, found[0] if found else {}


def write_card(path: Path, content: Mapping[str, Any]) -> None:
    """Write the card of a folder whose config.json has this content.

    Figures are those of the metafile for the config's name, each marked as published by others or
    as measured; they are not of these weights.
    """
    name = content['name']
    entry, collection = index_entry(name)
    data = entry.get('Metadata', {}).get('Training Data')
    head: dict[str, Any] = dict(
        license='apache-2.0',
        library_name='infoclip_mmseg',
        pipeline_tag='image-segmentation',
        tags=['open-vocabulary', 'semantic-segmentation', 'mmsegmentation', 'clip'],
    )
    paper = collection.get('Paper', {})
    words = content['vocabulary']
    lines = [
        '---',
        yaml.safe_dump(head, sort_keys=False).strip(),
        '---',
        '',
        f'# {name}',
        '',
        f'An open-vocabulary segmentation model of infoclip_mmseg {content["version"]}.',
        '',
        USE.format(name=name),
        '',
        f'- Method: {collection.get("Name", "not in the index of configs")}'
        + (f', [{paper["Title"]}]({paper["URL"]})' if paper else ''),
        f'- Trained on: {data or "not stated"}',
        f'- Vocabulary in the folder: {"none" if words is None else f"{len(words)} names"}',
        f'- SHA-256 of the weights: `{content["weights"]["sha256"]}`',
        '- Licence: Apache 2.0 for code and head; the weights of CLIP and the training data have '
        'licences of their own.',
        '',
        '## Figures of this config',
        '',
        *_figures(entry),
    ]
    write_text(path, '\n'.join(lines) + '\n')


def _figures(entry: Mapping[str, Any]) -> list[str]:
    results = entry.get('Results') or []
    if not results:
        return ['None is known.']
    rows = ['| data set | figures | source |', '| --- | --- | --- |']
    for result in results:
        figures = ', '.join(f'{key} {value}' for key, value in result['Metrics'].items())
        source = result.get('Source', '')
        where = result.get('Reference') or result.get('Command') or ''
        note = 'published by others, not these weights' if source == 'published' else source
        rows.append(f'| {result["Dataset"]} | {figures} | {note}: {where} |')
    return rows
