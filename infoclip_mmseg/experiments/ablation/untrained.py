"""Saves the weights with which a training would start, as a checkpoint.

Usage: python -m infoclip_mmseg.experiments.ablation.untrained CONFIG CHECKPOINT
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmengine.runner import set_random_seed
from mmseg.registry import MODELS


def save_untrained(cfg: Config, path: Path) -> None:
    """Build a model, load its pretrained weights if it has any, and save it.

    Args:
        cfg: Config with `model` and `randomness.seed`.
        path: File to write.
    """
    init_default_scope(cfg.get('default_scope', 'mmseg'))
    set_random_seed(cfg.randomness.seed)
    preprocessor = cfg.get('data_preprocessor')
    defaults = {} if preprocessor is None else dict(data_preprocessor=preprocessor)
    model = MODELS.build({**defaults, **cfg.model})
    model.init_weights()
    torch.save({'meta': {}, 'state_dict': model.state_dict()}, path)


if __name__ == '__main__':
    save_untrained(Config.fromfile(sys.argv[1]), Path(sys.argv[2]))
