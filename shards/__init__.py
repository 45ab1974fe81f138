"""From narrations and media to tar shards, and from shards to samples."""
