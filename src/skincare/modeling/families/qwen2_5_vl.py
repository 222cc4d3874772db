"""Qwen2.5-VL: most vision blocks attend within windows of 8 x 8 patches, and the patches are sorted by window.

Source: config.json of Qwen/Qwen2.5-VL-3B-Instruct (Qwen Research License), arXiv 2502.13923.
"""

from collections.abc import Sequence
from typing import Any

import torch
from transformers.vision_utils import get_vision_window_index

from skincare.modeling.families.base import Family, PublishedModel, image_lengths
from skincare.modeling.prompt_encoder import Grid


class Qwen25VL(Family):
    """The adapter of Qwen2.5-VL; features are cached in window order."""

    model_type = "qwen2_5_vl"
    label = "Qwen2.5-VL"
    vision_settings = ("num_heads", "window_size", "fullatt_block_indexes")
    published = PublishedModel(
        frozenset({"Qwen/Qwen2.5-VL-3B-Instruct"}),
        {
            "text_config": {
                "vocab_size": 151_936, "hidden_size": 2048, "intermediate_size": 11_008, "num_hidden_layers": 36,
                "num_attention_heads": 16, "num_key_value_heads": 2, "max_position_embeddings": 128_000,
                "rms_norm_eps": 1e-6,
                "rope_parameters": {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [16, 24, 24]},
                "bos_token_id": 151_643, "eos_token_id": 151_645,
            },
            "vision_config": {
                "depth": 32, "hidden_size": 1280, "intermediate_size": 3420, "num_heads": 16, "out_hidden_size": 2048,
                "window_size": 112, "fullatt_block_indexes": [7, 15, 23, 31], "tokens_per_second": 2,
            },
            "tie_word_embeddings": True,
            "image_token_id": 151_655, "video_token_id": 151_656,
            "vision_start_token_id": 151_652, "vision_end_token_id": 151_653,
            "dtype": "bfloat16",
        },
        n_parameters=3_754_622_976,
        n_reference_trainable=133_487_800,
    )  # fmt: skip
    larger = (
        published.resized(
            frozenset({"Qwen/Qwen2.5-VL-7B-Instruct"}), 8_292_166_656, 297_334_456,
            {"vocab_size": 152_064, "hidden_size": 3584, "intermediate_size": 18_944, "num_hidden_layers": 28,
             "num_attention_heads": 28, "num_key_value_heads": 4},
            {"out_hidden_size": 3584}, tie_word_embeddings=False,
        ),
    )  # fmt: skip

    def attention_lengths(self, visual: Any, grids: Sequence[Grid]) -> list[list[int]]:
        """Return the lengths of the windows, and of whole images for the few blocks that attend over them."""
        in_windows, whole = _windows(visual, grids)[1].diff().tolist(), image_lengths(grids)
        return [whole if i in visual.fullatt_block_indexes else in_windows for i in range(len(visual.blocks))]

    def block_order(self, visual: Any, grids: Sequence[Grid]) -> torch.Tensor:
        """Return the merge blocks sorted by window, image by image."""
        return _windows(visual, grids)[0]


def _windows(visual: Any, grids: Sequence[Grid]) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the order of the merge blocks, and the (n_windows + 1,) bounds of the windows in patches."""
    return get_vision_window_index(
        torch.tensor(grids),
        spatial_merge_size=visual.spatial_merge_size,
        window_size=visual.window_size,
        patch_size=visual.patch_size,
    )
