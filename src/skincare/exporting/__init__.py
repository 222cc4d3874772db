"""Checkpoint formats of a trained model: merged, quantised, pruned, with the files that production needs."""
