"""Qwen2-VL-2B at its true shape with random weights, for benchmarks without a download."""

import os
import platform
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(REPOSITORY / "src"))

import torch
from accelerate import init_empty_weights
from torch import nn
from transformers import AutoConfig, AutoModelForImageTextToText

from skincare.modeling.families.registry import FAMILIES
from skincare.modeling.freezing import count
from skincare.modeling.prompt_encoder import PromptEncoder

Dtype = Literal["bfloat16", "float32"]


def native_dtype(device: torch.device) -> Dtype:
    """Return the fastest data type of a device: CPUs without bf16 instructions are five times slower in bf16."""
    is_native = device.type == "cuda" or torch.ops.mkldnn._is_mkldnn_bf16_supported()
    return "bfloat16" if is_native else "float32"


def device_name(device: torch.device) -> str:
    """Return the name of a device in the results."""
    return torch.cuda.get_device_name() if device.type == "cuda" else f"{os.cpu_count()} cores, {platform.machine()}"


def timed(work: Callable[[], object], device: torch.device) -> float:
    """Return the seconds of a piece of work, including its asynchronous part on the device."""
    if device.type == "cuda":
        torch.cuda.synchronize()
    started = time.perf_counter()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - started


def full_size_model(
    dtype: torch.dtype, device: torch.device, encoder: PromptEncoder, n_layers: int = 28, n_vision_blocks: int = 32
) -> Any:
    """Return Qwen2-VL-2B's shape with random weights; the special tokens are those of the encoder's processor.

    With fewer language layers or vision blocks the width stays that of the published model.
    """
    token_id = encoder.tokenizer.convert_tokens_to_ids
    shape = FAMILIES["qwen2_vl"].published.config
    text_config = shape["text_config"] | {"pad_token_id": encoder.pad_token_id, "num_hidden_layers": n_layers}
    vision_config = shape["vision_config"] | {"depth": n_vision_blocks}
    special_tokens = {
        "image_token_id": encoder.image_token_id,
        "video_token_id": token_id("<|video_pad|>"),
        "vision_start_token_id": token_id("<|vision_start|>"),
        "vision_end_token_id": token_id("<|vision_end|>"),
    }
    parts = {"text_config": text_config, "vision_config": vision_config}
    config = AutoConfig.for_model("qwen2_vl", **(shape | special_tokens | parts))
    with init_empty_weights(include_buffers=False):
        model = AutoModelForImageTextToText.from_config(config, dtype=dtype)
    # One block of random numbers is repeated: generating 2.2 billion takes minutes. It is filled on the device.
    block = (torch.randn(2**22, generator=torch.Generator().manual_seed(0)) * 0.02).to(device, dtype)
    for module in model.modules():
        for name, parameter in list(module.named_parameters(recurse=False)):
            is_gain = parameter.ndim == 1 and name == "weight"
            fill = torch.ones if is_gain else torch.empty
            values = fill(parameter.shape, dtype=dtype, device=device)
            if not is_gain:
                flat = values.view(-1)
                for start in range(0, flat.numel(), block.numel()):
                    flat[start : start + block.numel()] = block[: flat.numel() - start]
            module.register_parameter(name, nn.Parameter(values))
    model.tie_weights()
    assert (n_layers, n_vision_blocks) != (28, 32) or count(model.parameters()) == 2_208_985_600
    return model.to(device)
