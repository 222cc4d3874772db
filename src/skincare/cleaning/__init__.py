"""Cleaning of images: quality metrics, checks, near-duplicates, review of thresholds, product crop."""
