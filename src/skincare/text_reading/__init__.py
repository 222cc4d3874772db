"""OCR of packs, and a text classifier that predicts the category from the recognised lines."""
