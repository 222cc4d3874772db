"""Qwen3-VL: learned positions, interpolated to each image's grid, and DeepStack.

DeepStack adds the merged output of intermediate vision blocks to the visual tokens after the first language layers.
The mergers of these blocks are trained by `everything` only: the merger of the reference recipe is the last one, so
that the output of the others can be cached.

Source: config.json of Qwen/Qwen3-VL-2B-Instruct (Apache-2.0), arXiv 2511.21631; DeepStack: arXiv 2406.04334.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from transformers.vision_utils import get_vision_interpolation_indices_and_weights

from skincare.modeling.families.base import Family, PublishedModel
from skincare.modeling.prompt_encoder import Grid
from skincare.modeling.staging import on_device


class Qwen3VL(Family):
    """The adapter of Qwen3-VL."""

    model_type = "qwen3_vl"
    label = "Qwen3-VL"
    vision_settings = ("num_heads", "deepstack_visual_indexes")
    published = PublishedModel(
        frozenset({"Qwen/Qwen3-VL-2B-Instruct"}),
        {
            "text_config": {
                "vocab_size": 151_936, "hidden_size": 2048, "intermediate_size": 6144, "num_hidden_layers": 28,
                "num_attention_heads": 16, "num_key_value_heads": 8, "head_dim": 128,
                "max_position_embeddings": 262_144,
                "rope_parameters": {
                    "rope_type": "default", "rope_theta": 5e6, "mrope_interleaved": True,
                    "mrope_section": [24, 20, 20],
                },
                "bos_token_id": 151_643, "eos_token_id": 151_645,
            },
            "vision_config": {
                "depth": 24, "hidden_size": 1024, "intermediate_size": 4096, "num_heads": 16, "out_hidden_size": 2048,
                "num_position_embeddings": 2304, "deepstack_visual_indexes": [5, 11, 17],
            },
            "tie_word_embeddings": True,
            "image_token_id": 151_655, "video_token_id": 151_656,
            "vision_start_token_id": 151_652, "vision_end_token_id": 151_653,
            "dtype": "bfloat16",
        },
        n_parameters=2_127_532_032,
        n_reference_trainable=88_106_240,
    )  # fmt: skip
    larger = (
        published.resized(
            frozenset({"Qwen/Qwen3-VL-4B-Instruct"}), 4_437_815_808, 140_798_720,
            {"hidden_size": 2560, "intermediate_size": 9728, "num_hidden_layers": 36, "num_attention_heads": 32},
            {"out_hidden_size": 2560},
        ),
        published.resized(
            frozenset({"Qwen/Qwen3-VL-8B-Instruct"}), 8_767_123_696, 248_304_976,
            {"hidden_size": 4096, "intermediate_size": 12_288, "num_hidden_layers": 36, "num_attention_heads": 32},
            {"depth": 27, "hidden_size": 1152, "intermediate_size": 4304, "out_hidden_size": 4096,
             "deepstack_visual_indexes": [8, 16, 24]},
            tie_word_embeddings=False,
        ),
    )  # fmt: skip

    def patch_positions(self, visual: Any, grids: Sequence[Grid]) -> torch.Tensor:
        """Return the learned positions, interpolated from their square grid to the images' grids."""
        places, weights = get_vision_interpolation_indices_and_weights(
            torch.tensor(grids),
            num_grid_per_side=visual.num_grid_per_side,
            mode=visual.interpolation_mode,
            align_corners=visual.interpolation_align_corners,
            spatial_merge_size=visual.spatial_merge_size,
        )
        device = visual.pos_embed.weight.device
        return (visual.pos_embed(on_device(places, device)) * on_device(weights, device)[:, :, None]).sum(1)

    def position_modules(self, visual: Any) -> list[nn.Module]:
        """Return the embedding of the learned positions."""
        return [visual.pos_embed]

    def deepstack_mergers(self, visual: Any) -> dict[int, nn.Module]:
        """Return the DeepStack mergers by the index of the block whose output they merge."""
        return dict(zip(visual.deepstack_visual_indexes, visual.deepstack_merger_list, strict=True))
