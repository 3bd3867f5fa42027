"""InfoCLIP and CAT-Seg as an MMSegmentation plugin: open-vocabulary semantic segmentation.

Importing the package registers its modules in mmseg's registries and does nothing else.
"""

from infoclip_mmseg import datasets, engine, evaluation, losses, models, pretraining

__version__ = '0.1.0'

__all__ = [
    '__version__',
    'datasets',
    'engine',
    'evaluation',
    'losses',
    'models',
    'pretraining',
]
