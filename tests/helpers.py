"""Images, answers and examples that tests make."""

import numpy as np
from PIL import Image

from skincare.inference.predictions import Prediction
from skincare.modeling.prompt_encoder import PromptEncoder


def noise_image(height: int, width: int, seed: int = 0) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def mixed_pixels(encoder: PromptEncoder) -> list:
    """Four images of three shapes; the limits are widened so that they keep them."""
    processor = encoder.processor.image_processor
    old, processor.size = processor.size, {"shortest_edge": 20 * 784, "longest_edge": 60 * 784}
    try:
        shapes = ((168, 168), (200, 120), (168, 168), (100, 230))
        return [encoder.patches(noise_image(*shape, seed=i)) for i, shape in enumerate(shapes)]
    finally:
        processor.size = old


def prediction(image_id: str, truth: str, category: str | None, **changes) -> Prediction:
    """Return a prediction with the given image id, truth and category."""
    fields = {
        "image_id": image_id,
        "product_id": image_id.rpartition("_")[0],
        "file": f"clean_dataset/images/pack_{image_id}.jpg",
        "split": "test",
        "truth": truth,
        "decoder": "generate",
        "text": category or "no idea",
        "n_new_tokens": 3,
        "is_finished": True,
        "category": category,
        "status": "exact" if category else "offlist",
        "candidates": (category,) if category else (),
        "log_probabilities": (),
        "latency_s": 0.01,
    }
    return Prediction(**{**fields, **changes})
