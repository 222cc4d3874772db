"""Pictures and examples that the tests of the model side make."""

import numpy as np
from PIL import Image

from skincare.batches import PromptEncoder


def noise_picture(height: int, width: int, seed: int = 0) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def mixed_pixels(encoder: PromptEncoder) -> list:
    """Four pictures of three shapes; the limits are widened so that they keep them."""
    processor = encoder.processor.image_processor
    old, processor.size = processor.size, {"shortest_edge": 20 * 784, "longest_edge": 60 * 784}
    try:
        shapes = ((168, 168), (200, 120), (168, 168), (100, 230))
        return [encoder.pixels(noise_picture(*shape, seed=i)) for i, shape in enumerate(shapes)]
    finally:
        processor.size = old
