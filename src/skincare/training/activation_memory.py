"""Activation memory of training passes, measured on the meta device without weights.

The model is built on the meta device (shapes without storage), forward passes are run through it, and autograd's hooks
report the tensors stored for the backward pass, so that the numbers follow the code and not a formula. The meta device
ignores autocast: activations of trained parts count in fp32, up to 1.6 times their size in a real bf16 pass, and the
last language layer counts for all tokens, of which a pass computes only those of the answers and what pads them. So the
plan errs on the safe side.
"""

import copy
from typing import Any
from weakref import WeakSet

import torch
from torch.overrides import TorchFunctionMode
from transformers import AutoModelForImageTextToText, DynamicCache

from skincare.modeling import vision_tower
from skincare.modeling.prompt_encoder import Grid
from skincare.training.gradient_checkpointing import enable_checkpointing


def meta_model(config: Any) -> Any:
    """Return the model of a config on the meta device, in bf16 as the published checkpoints are."""
    with torch.device("meta"):
        # A copy: from_config writes the dtype into the config.
        model = AutoModelForImageTextToText.from_config(copy.deepcopy(config), dtype=torch.bfloat16)
    model.tie_weights()
    return model


def checkpointed_bytes_per_image(model: Any, n_tokens: int, grid: Grid) -> tuple[int, int]:
    """Return the bytes stored per image with checkpointing, and those that one layer recomputes.

    Checkpointing stays enabled on `model`.
    """
    # Checkpointed layers cannot use the cached prompt prefix: every prompt is processed as a whole.
    stored = [activation_bytes(model, n_tokens, 0, grid, n) for n in (1, 2)]
    enable_checkpointing(model)
    model.train()  # transformers recomputes in training mode only
    checkpointed = [activation_bytes(model, n_tokens, 0, grid, n) for n in (1, 2)]
    per_image = checkpointed[1] - checkpointed[0]
    return per_image, (stored[1] - stored[0] - per_image) // model.config.text_config.num_hidden_layers


def activation_bytes(model: Any, n_tokens: int, n_cached: int, grid: Grid, n_images: int) -> int:
    """Return the bytes that autograd stores in one forward pass, without weights.

    The first `n_cached` of the `n_tokens` of each prompt are given as cached keys and values.
    """
    weights = dict.fromkeys(parameter.untyped_storage()._cdata for parameter in model.parameters())
    # Only what the graph still holds at the end: DoRA drops the graph of its row lengths.
    stored: WeakSet[_Stored] = WeakSet()

    def store(tensor: torch.Tensor) -> _Stored:
        found = _Stored(tensor)
        stored.add(found)
        return found

    visual, n_prefix = model.model.visual, vision_tower.count_frozen_blocks(model.model.visual)
    width = vision_tower.feature_width(visual, n_prefix)
    text, n_new = model.config.text_config, n_tokens - n_cached
    head_width = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
    cache_shape = n_images, text.num_key_value_heads, n_cached, head_width
    cache = DynamicCache()
    with torch.device("meta"):
        for i in range(text.num_hidden_layers if n_cached else 0):
            keys, values = (torch.empty(cache_shape, dtype=torch.bfloat16) for _ in range(2))
            cache.update(keys, values, i)
        mask = torch.empty(n_images, 1, n_new, n_tokens, dtype=torch.bool)
        features = [torch.empty(grid[1] * grid[2], width, dtype=torch.bfloat16) for _ in range(n_images)]
        words = torch.empty(n_images, n_new, text.hidden_size, dtype=torch.bfloat16)
        positions = torch.empty(3, n_images, n_new, dtype=torch.int64)
    hooks = torch.autograd.graph.saved_tensors_hooks(store, lambda found: found.tensor)
    with hooks, torch.autocast("cpu", torch.bfloat16), _FusedAttention():
        images = vision_tower.visual_embeddings(visual, features, [grid] * n_images, n_prefix)
        # One number for all levels of DeepStack too: adding them to a layer's output stores nothing more.
        embeddings = words + images.sum()
        output = model.model.language_model(
            inputs_embeds=embeddings,
            attention_mask=mask,
            position_ids=positions,
            past_key_values=cache if n_cached else None,
            use_cache=False,
        )
    storages = {one.tensor.untyped_storage()._cdata: one.tensor.untyped_storage().nbytes() for one in stored}
    del output  # it holds the graph until here
    return sum(n_bytes for storage, n_bytes in storages.items() if storage not in weights)


class _Stored:
    """A tensor that autograd stores, for as long as the graph holds it."""

    def __init__(self, tensor: torch.Tensor) -> None:
        self.tensor = tensor


class _FusedAttention(TorchFunctionMode):
    """Makes attention store what fused kernels store; on the meta device it would store T x T scores."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.nn.functional.scaled_dot_product_attention:
            return _AttentionShapes.apply(*args[:3])
        return func(*args, **(kwargs or {}))


class _AttentionShapes(torch.autograd.Function):
    """Attention without arithmetic that stores query, key, value, output and one number per query."""

    @staticmethod
    def forward(context: Any, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
        query, key, value = (one.to(torch.bfloat16) for one in (query, key, value))
        output = torch.empty_like(query)
        context.save_for_backward(query, key, value, output, query.new_empty(query.shape[:-1], dtype=torch.float32))
        return output

    @staticmethod
    def backward(context: Any, *gradients: torch.Tensor) -> Any:
        raise NotImplementedError
