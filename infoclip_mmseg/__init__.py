"""InfoCLIP and CAT-Seg as an MMSegmentation plugin: open-vocabulary semantic segmentation.

Importing the package registers its modules in mmseg's registries and does nothing else.
"""

from typing import Any

from infoclip_mmseg.utils.notices import without_import_notices
from infoclip_mmseg.version import __version__

with without_import_notices():
    from infoclip_mmseg import datasets, engine, evaluation, losses, models
    from infoclip_mmseg.visualization import local_visualizer
    from infoclip_mmseg.world import pretraining

__all__ = [
    'OpenVocabInferencer',
    '__version__',
    'datasets',
    'engine',
    'evaluation',
    'local_visualizer',
    'losses',
    'models',
    'pretraining',
]


def __getattr__(name: str) -> Any:
    """What is imported when it is first used: inference, which training does not need."""
    if name == 'OpenVocabInferencer':
        from infoclip_mmseg.apis import OpenVocabInferencer

        return OpenVocabInferencer
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
