"""Towers: video clips or words in, embeddings out. They know nothing of ranks, data or losses."""
