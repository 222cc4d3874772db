"""The shape of Qwen2-VL-2B, base and Instruct: a training run can be planned without the checkpoint and without a hub.

Source: config.json of Qwen/Qwen2-VL-2B (Apache-2.0). The token counts were computed with its byte-level BPE vocabulary.
"""

from typing import Any, Final

from skincare.modeling.settings import DEFAULT_MODEL

MODELS: Final = frozenset({DEFAULT_MODEL, "Qwen/Qwen2-VL-2B-Instruct"})

CONFIG: Final[dict[str, Any]] = {
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
}  # fmt: skip

# Tokens of the default labels' prompt, before and after the image, and of its longest label.
_TOKEN_COUNTS: Final = {
    "<|im_start|>system\nYou name the type of the skincare product in an image. Answer with exactly one of these "
    "categories and nothing else: Moisturiser, Exfoliator, Bath Salts, Body Wash, Eye Care, Cleanser, Bath Oil, Serum, "
    "Toner, Mist, Balm, Mask, Peel, Oil.<|im_end|>\n<|im_start|>user\n<|vision_start|>": 72,
    "<|vision_end|>What type of skincare product is shown in this image?<|im_end|>\n<|im_start|>assistant\n": 17,
    "Moisturiser": 4,
}


def count_tokens(text: str) -> int:
    """Return the number of tokens of a text of the default prompt; for any other text, an upper bound: its bytes."""
    return _TOKEN_COUNTS.get(text, len(text.encode("utf-8")))
