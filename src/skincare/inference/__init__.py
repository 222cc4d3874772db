"""Categories for images that are in no dataset: by the text on the pack, by a model, or by both."""
