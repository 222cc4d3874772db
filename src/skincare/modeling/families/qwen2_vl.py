"""Qwen2-VL: a plain vision transformer with 2D rotary positions; the model of the reference experiment.

Source: config.json of Qwen/Qwen2-VL-2B (Apache-2.0), arXiv 2409.12191.
"""

from typing import Any

from skincare.modeling.families.base import Family, PublishedModel
from skincare.modeling.settings import DEFAULT_MODEL


class Qwen2VL(Family):
    """The adapter of Qwen2-VL."""

    model_type = "qwen2_vl"
    label = "Qwen2-VL"
    published = PublishedModel(
        frozenset({DEFAULT_MODEL, "Qwen/Qwen2-VL-2B-Instruct"}),
        {
            "text_config": {
                "vocab_size": 151_936, "hidden_size": 1536, "intermediate_size": 8960, "num_hidden_layers": 28,
                "num_attention_heads": 12, "num_key_value_heads": 2, "max_position_embeddings": 32_768,
                "rope_parameters": {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [16, 24, 24]},
                "bos_token_id": 151_643, "eos_token_id": 151_645,
            },
            "vision_config": {"depth": 32, "embed_dim": 1280, "hidden_size": 1536, "num_heads": 16, "mlp_ratio": 4},
            "tie_word_embeddings": True,
            "image_token_id": 151_655, "video_token_id": 151_656,
            "vision_start_token_id": 151_652, "vision_end_token_id": 151_653,
            "dtype": "bfloat16",
        },
        n_parameters=2_208_985_600,
        n_reference_trainable=100_563_200,
    )  # fmt: skip
    larger = (
        published.resized(
            frozenset({"Qwen/Qwen2-VL-7B", "Qwen/Qwen2-VL-7B-Instruct"}), 8_291_375_616, 297_310_976,
            {"vocab_size": 152_064, "hidden_size": 3584, "intermediate_size": 18_944, "num_attention_heads": 28,
             "num_key_value_heads": 4},
            {"hidden_size": 3584}, tie_word_embeddings=False,
        ),
    )  # fmt: skip

    def vision_width(self, config: Any) -> int:
        """Return the width of the vision blocks; `hidden_size` is that of the language model here."""
        return config.embed_dim
