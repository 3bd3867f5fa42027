"""Pictures of predictions, embeddings and relation maps."""
