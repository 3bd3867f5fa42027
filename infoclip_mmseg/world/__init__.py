"""The composed world: scenes of objects that are compositions of colour, texture and shape."""

from infoclip_mmseg.world.attributes import (
    WorldSpec,
    compose,
    distractor_names,
    make_spec,
    seen_classes,
    seen_compositions,
)
from infoclip_mmseg.world.captions import caption, caption_words
from infoclip_mmseg.world.dataset import ComposedWorldDataset, export_world
from infoclip_mmseg.world.render import (
    DOMAINS,
    Domain,
    Scene,
    SceneObject,
    render_scene,
    scene_rng,
)

__all__ = [
    'DOMAINS',
    'ComposedWorldDataset',
    'Domain',
    'Scene',
    'SceneObject',
    'WorldSpec',
    'caption',
    'caption_words',
    'compose',
    'distractor_names',
    'export_world',
    'make_spec',
    'render_scene',
    'scene_rng',
    'seen_classes',
    'seen_compositions',
]
