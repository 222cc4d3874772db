"""Qwen2-VL itself: loading, freezing, batches, the passes that training and evaluation need."""
