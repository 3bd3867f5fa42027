"""The composed world: scenes of objects that are compositions of colour, texture and shape."""

from infoclip_mmseg.world.attributes import WorldSpec, caption, caption_words
from infoclip_mmseg.world.dataset import ComposedWorldDataset, export_world
from infoclip_mmseg.world.render import DOMAINS, render_scene, scene_rng

__all__ = [
    'DOMAINS',
    'ComposedWorldDataset',
    'WorldSpec',
    'caption',
    'caption_words',
    'export_world',
    'render_scene',
    'scene_rng',
]
