"""Token counts of the default prompt with Qwen's tokenizer, so that a training run can be planned without a hub.

Qwen2-VL, Qwen2.5-VL and Qwen3-VL have the same byte-level BPE vocabulary, with which the counts were computed.
"""

from typing import Final

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
