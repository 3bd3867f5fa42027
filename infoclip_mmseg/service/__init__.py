"""Segmentation over HTTP; see tools/serve.py. Needs the extra `serve`."""
