"""A small world with known truth: narrated how-to videos, made here and served as a web site."""
