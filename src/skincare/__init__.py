"""What the pipeline's stages share: nouns, one module each (paths, tables, categories, pages, images, ...)."""
