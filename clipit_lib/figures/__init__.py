"""Figures, from stored runs and cached embeddings only."""
