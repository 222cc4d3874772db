"""Cleaned images as a dataset: chat format, splits without leaks, shards."""
