"""Convert a published CAT-Seg checkpoint to this plugin's layout.

Example: python tools/convert_catseg.py model_base.pth data/catseg_vitb16.pth
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch
from mmengine.registry import init_default_scope

import infoclip_mmseg  # noqa: F401  (registers the modules)
from infoclip_mmseg.models.decode_heads.cat_seg_checkpoint import Conversion, convert_catseg
from infoclip_mmseg.utils.checkpoint_files import load_checkpoint_file

# (width, layers, patch) of the published image towers and the configs that go with them.
CONFIGS = {
    (768, 12, 16): 'configs/catseg_vitb16_ade20k.py',
    (1024, 24, 14): 'configs/catseg_vitl14_ade20k.py',
}


def save(conversion: Conversion, destination: Path) -> None:
    """Write an MMEngine checkpoint; its vocabulary is COCO-Stuff's, which CAT-Seg trains on."""
    from mmseg.datasets import COCOStuffDataset  # behind ours, which keeps mmcv's notices quiet

    names = COCOStuffDataset.METAINFO
    meta = dict(dataset_meta=dict(classes=names['classes'], palette=names['palette']))
    destination.parent.mkdir(parents=True, exist_ok=True)
    torch.save(dict(state_dict=conversion.state_dict, meta=meta), destination)


def report(conversion: Conversion, destination: Path) -> None:
    """Print what was converted and every key that has no place."""
    vision = conversion.model['backbone']['model_name']['vision_cfg']
    config = CONFIGS.get((vision['width'], vision['layers'], vision['patch_size']))
    print(f'{len(conversion.state_dict)} tensors written to {destination}')
    print(f'image tower: {vision}; config: {config or "none of the published ones"}')
    if conversion.derived:
        print(f'{len(conversion.derived)} attention masks left out (they follow from the sizes)')
    for key in conversion.unplaced:
        print(f'no place for {key}')


def main() -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('src', type=Path, help='published checkpoint, .pth')
    parser.add_argument('dst', type=Path, help='checkpoint to write, .pth')
    args = parser.parse_args()
    init_default_scope('mmseg')
    try:
        conversion = convert_catseg(load_checkpoint_file(args.src))
    except (ValueError, FileNotFoundError) as error:
        print(f'{args.src}: {error}', file=sys.stderr)
        return 2
    save(conversion, args.dst)
    report(conversion, args.dst)
    return 0


if __name__ == '__main__':
    sys.exit(main())
