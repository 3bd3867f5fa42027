#!/usr/bin/env python
"""Write the table of open_clip's models: which of them this package takes, and why not the others.

Usage: python tools/list_clips.py configs/CLIPS.md

Each model is built without weights and memory (PyTorch's meta device); nothing is downloaded.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import open_clip
import torch

from infoclip_mmseg.models import CLIPDualEncoder

BEGIN, END = '<!-- table of tools/list_clips.py -->', '<!-- end of the table -->'
COLUMNS = ('model', 'image tower', 'patch', 'C', 'text tokens', 'tokenizer')


class Clip(NamedTuple):
    """A model of open_clip as this package sees it."""

    name: str
    tower: str = ''  # the image tower, and how it pools
    patch: int = 0  # pixels of a position
    channels: int = 0
    context: int = 0  # tokens of a prompt
    tokenizer: str = ''
    refused: str = ''  # why; empty if it works


@torch.no_grad()
def look_at(name: str) -> Clip:
    """Build a model, by name, and run an image of 2 x 3 patches and a prompt through its shapes."""
    refused = ''
    for mode in ('catseg', 'maskclip_residual'):
        try:
            with torch.device('meta'):
                encoder = CLIPDualEncoder(name, finetune='frozen', dense_mode=mode).eval()
            break
        except ValueError as error:
            refused = reason(name, str(error))
    else:
        return Clip(name, refused=refused)
    config = open_clip.get_model_config(name)
    (height, width), context = encoder.patch_size, encoder.text_tower.context_length
    images = torch.zeros(1, 3, 2 * height, 3 * width, device='meta')
    dense = encoder.encode_image(images).dense
    text = encoder.encode_text(torch.ones(1, context, dtype=torch.int))
    if dense.shape != (1, text.shape[1], 2, 3):
        raise RuntimeError(f'{name}: dense {tuple(dense.shape)}, text {tuple(text.shape)}')
    kind = config['vision_cfg'].get('timm_model_name', "open_clip's ViT")
    note = '' if mode == 'catseg' else '; no `catseg`'
    tokenizer = config['text_cfg'].get('hf_tokenizer_name', 'CLIP')
    return Clip(name, kind + note, height, text.shape[1], context, tokenizer)


def reason(name: str, error: str) -> str:
    """What an error says of a model, in few words."""
    got = error.rpartition(', got ')[2]
    return f'image tower: {got}' if ', got ' in error else error.removeprefix(f'{name!r}: ')


def table(clips: Iterable[Clip]) -> str:
    """Two tables, of what works and of what does not."""
    clips = list(clips)
    works = [clip[: len(COLUMNS)] for clip in clips if not clip.refused]
    refused = [(clip.name, clip.refused) for clip in clips if clip.refused]
    return (
        f'{len(works)} of the {len(clips)} models of open_clip {open_clip.__version__} work:\n\n'
        f'{rows([COLUMNS, *works])}\n\n{len(refused)} are refused:\n\n'
        f'{rows([("model", "why"), *refused])}\n'
    )


def rows(cells: Sequence[Sequence[object]]) -> str:
    """A table in Markdown, the first row its head."""
    lines = [f'| {" | ".join(map(str, row))} |' for row in cells]
    return '\n'.join([lines[0], '|' + ' --- |' * len(cells[0]), *lines[1:]])


def main(argv: Sequence[str] | None = None) -> None:
    """Run the program."""
    parser = argparse.ArgumentParser(description="Write the table of open_clip's models.")
    parser.add_argument('page', type=Path, help=f'page to write in, between {BEGIN} and {END}')
    page = parser.parse_args(argv).page
    text = page.read_text(encoding='utf-8')
    before, _, rest = text.partition(BEGIN)
    after = rest.partition(END)[2]
    clips = [look_at(name) for name in open_clip.list_models()]
    page.write_text(f'{before}{BEGIN}\n\n{table(clips)}\n{END}{after}', encoding='utf-8')
    print(f'{len(clips)} models written to {page}')


if __name__ == '__main__':
    main()
