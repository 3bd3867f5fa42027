"""Experiments on the plugin: measurements and ablations; the plugin itself needs none of it."""
