"""Tiny random models of every family, in folders, with the embedded model's tokenizer; their accuracy means nothing."""

from pathlib import Path

import torch
from transformers import (
    AutoConfig,
    AutoModelForImageTextToText,
    Qwen2_5_VLProcessor,
    Qwen2VLImageProcessor,
    Qwen2VLProcessor,
    Qwen3VLProcessor,
)
from transformers.models.qwen2_vl.video_processing_qwen2_vl import Qwen2VLVideoProcessor
from transformers.models.qwen3_vl.video_processing_qwen3_vl import Qwen3VLVideoProcessor

from skincare.modeling.loading import load_processor
from skincare.paths import TINY_MODEL

MODEL_TYPES = ("qwen2_vl", "qwen2_5_vl", "qwen3_vl")

_TEXT = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 4, "num_attention_heads": 4,
         "num_key_value_heads": 2, "max_position_embeddings": 1024, "initializer_range": 0.1}  # fmt: skip
# Of 16 numbers a head: 8 frequencies, 2 frames, 3 rows, 3 columns.
_ROPE = {"rope_type": "default", "rope_theta": 10_000.0, "mrope_section": [2, 3, 3]}
_VISION = {"depth": 4, "num_heads": 2, "initializer_range": 0.1}
_VISION_OF = {
    "qwen2_vl": {"embed_dim": 64, "hidden_size": 64, "mlp_ratio": 2},
    # Windows of 4 x 4 patches, so that images of a few tokens have several, cut off at the edges.
    "qwen2_5_vl": {"hidden_size": 64, "intermediate_size": 80, "out_hidden_size": 64, "window_size": 56,
                   "fullatt_block_indexes": [1, 3]},
    "qwen3_vl": {"hidden_size": 64, "intermediate_size": 96, "out_hidden_size": 64, "num_position_embeddings": 36,
                 "deepstack_visual_indexes": [0, 2]},
}  # fmt: skip


def write_family_model(model_type: str, folder: Path, *, is_tied: bool = True) -> Path:
    """Write a tiny random model with its processor; every weight is random, biases and gains too."""
    tokenizer = load_processor(TINY_MODEL).tokenizer
    token_id = tokenizer.convert_tokens_to_ids
    interleaved = {"mrope_interleaved": True} if model_type == "qwen3_vl" else {}
    head = {"head_dim": 16} if model_type == "qwen3_vl" else {}
    end, padding = token_id("<|im_end|>"), token_id("<|endoftext|>")
    text = {"vocab_size": len(tokenizer), "rope_parameters": _ROPE | interleaved, "eos_token_id": end,
            "pad_token_id": padding, "bos_token_id": padding}  # fmt: skip
    config = AutoConfig.for_model(
        model_type,
        text_config=_TEXT | text | head,
        vision_config=_VISION | _VISION_OF[model_type],
        image_token_id=token_id("<|image_pad|>"),
        video_token_id=token_id("<|video_pad|>"),
        vision_start_token_id=token_id("<|vision_start|>"),
        vision_end_token_id=token_id("<|vision_end|>"),
        tie_word_embeddings=is_tied,
    )
    torch.manual_seed(0)
    model = AutoModelForImageTextToText.from_config(config, dtype=torch.float32)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 1:
                parameter += 0.1 * torch.randn_like(parameter)
    model.save_pretrained(folder)
    _processor(model_type, tokenizer).save_pretrained(folder)
    return folder


def _processor(model_type: str, tokenizer):
    if model_type == "qwen3_vl":
        half = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3}
        return Qwen3VLProcessor(
            Qwen2VLImageProcessor(patch_size=16, **half), tokenizer, Qwen3VLVideoProcessor(patch_size=16, **half)
        )
    kind = Qwen2VLProcessor if model_type == "qwen2_vl" else Qwen2_5_VLProcessor
    return kind(Qwen2VLImageProcessor(), tokenizer, Qwen2VLVideoProcessor())
