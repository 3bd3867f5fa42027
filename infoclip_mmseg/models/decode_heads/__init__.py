"""From features and text embeddings to logits."""
