"""Preparation of the public data sets: fetch, unpack, convert, check."""

from infoclip_mmseg.datasets.prepare.label_files import PrepareError
from infoclip_mmseg.datasets.prepare.pipeline import RECIPES, Recipe

__all__ = ['RECIPES', 'PrepareError', 'Recipe']
