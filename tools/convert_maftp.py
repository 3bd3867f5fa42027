#!/usr/bin/env python
"""Convert a published checkpoint of MAFT+ or FC-CLIP to this plugin's layout.

Example: python tools/convert_maftp.py maftp_l.pth data/maftp_convnext-l.pth
         python tools/convert_maftp.py maftp_l_pano.pth data/maftp_convnext-l-pano.pth --panoptic
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch
from mmengine.registry import init_default_scope

import infoclip_mmseg  # noqa: F401  (registers the modules)
from infoclip_mmseg.datasets.vocabularies import load_vocabulary
from infoclip_mmseg.models.decode_heads.cat_seg_checkpoint import Conversion
from infoclip_mmseg.models.decode_heads.mask_checkpoint import convert_maftp
from infoclip_mmseg.utils.checkpoint_files import CheckpointError, load_checkpoint_file
from infoclip_mmseg.utils.palette import make_palette

# Width of the first stage, and whether there is a transfer; the config that goes with them.
CONFIGS = {
    (128, True): 'configs/maft-plus/maftp_convnext-b_ade20k.py',
    (192, True): 'configs/maft-plus/maftp_convnext-l_ade20k.py',
    (192, False): 'configs/fc-clip/fcclip_convnext-l_ade20k.py',
}


def save(conversion: Conversion, destination: Path) -> str:
    """Write an MMEngine checkpoint with the vocabulary that it was trained on; its name."""
    is_maftp = 'transfer' in conversion.model['decode_head']
    vocabulary = 'maftp_coco' if is_maftp else 'maftp_coco_panoptic'
    names = load_vocabulary(vocabulary)
    meta = dict(dataset_meta=dict(classes=names, palette=make_palette(len(names))))
    destination.parent.mkdir(parents=True, exist_ok=True)
    torch.save(dict(state_dict=conversion.state_dict, meta=meta), destination)
    return vocabulary


def report(conversion: Conversion, destination: Path, vocabulary: str) -> None:
    """Print what was converted and every key that has no place."""
    sizes = conversion.model['backbone']['model_name']['vision_cfg']['convnext']
    head = conversion.model['decode_head']
    config = CONFIGS.get((sizes['dims'][0], 'transfer' in head))
    print(f'{len(conversion.state_dict)} tensors written to {destination}')
    print(f'ConvNeXt: {sizes}; trained on {vocabulary}; config: {config or "none of ours"}')
    if 'transfer' in head:
        print(f'form of the transfer, as you say: {head["transfer"]["form"]}')
    if conversion.derived:
        print(f'{len(conversion.derived)} left out: the pretrained CLIP beside it, loss weights')
    for key in conversion.unplaced:
        print(f'no place for {key}')


def main(argv: Sequence[str] | None = None) -> None:
    """Run the program; bad input ends it with one error line and exit code 2."""
    parser = argparse.ArgumentParser(description='Convert a checkpoint of MAFT+ or FC-CLIP.')
    parser.add_argument('src', type=Path, help='published checkpoint, .pth')
    parser.add_argument('dst', type=Path, help='checkpoint to write, .pth')
    parser.add_argument(
        '--panoptic',
        action='store_true',
        help='the weights were trained with the panoptic form of the transfer (maftp_l_pano.pth); '
        'they do not tell',
    )
    args = parser.parse_args(argv)
    init_default_scope('mmseg')
    try:
        source = load_checkpoint_file(args.src)
        conversion = convert_maftp(source, 'panoptic' if args.panoptic else 'semantic')
    except (ValueError, FileNotFoundError, CheckpointError) as error:
        parser.exit(2, f'{parser.prog}: error: {args.src}: {error}\n')
    report(conversion, args.dst, save(conversion, args.dst))


if __name__ == '__main__':
    main()
