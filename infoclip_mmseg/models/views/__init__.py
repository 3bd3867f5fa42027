"""Views of an image, and what becomes of their logits."""
