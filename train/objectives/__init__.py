"""Objectives: embeddings in, one scalar out. One formula a file."""
