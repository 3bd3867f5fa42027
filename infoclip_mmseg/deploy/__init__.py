"""Exported files: what is exported, how it is written, and whether it agrees with the model."""
