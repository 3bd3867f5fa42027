"""Modules between embeddings and losses."""
