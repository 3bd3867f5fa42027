"""Pictures of predictions, embeddings and alignment maps."""
