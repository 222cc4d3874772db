"""The vision tower in two parts: a frozen prefix that is computed once per image, and the part that learns.

`Qwen2VisionTransformer` runs all its blocks in one call and attends image by image. Here the tower can be left
and entered between two blocks, and images of one size attend in one call. Both give what the plain call gives
(tests/test_vision.py). All images pass each module together, in one call: sharded weights are gathered by calls, so
every process must make as many.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from torch.nn import functional
from transformers.models.qwen2_vl.modeling_qwen2_vl import apply_rotary_pos_emb_vision
from transformers.vision_utils import get_vision_position_ids

from skincare.modeling.prompt_encoder import Grid


def count_frozen_blocks(visual: Any) -> int:
    """Return how many leading blocks hold no trainable parameter; -1 when the patch embedding itself learns."""
    if _learns(visual.patch_embed):
        return -1
    return next((i for i, block in enumerate(visual.blocks) if _learns(block)), len(visual.blocks))


@torch.no_grad()
def frozen_features(visual: Any, patches: Sequence[torch.Tensor], grids: Sequence[Grid], n_blocks: int) -> list:
    """Return each image's (n_patches, width) features after the first `n_blocks` blocks, without a graph."""
    features = visual.patch_embed(torch.cat([one.to(visual.get_dtype()) for one in patches]))
    return list(_blocks(visual, features, grids, 0, n_blocks).split(_lengths(grids)))


def visual_embeddings(
    visual: Any, features: Sequence[torch.Tensor], grids: Sequence[Grid], n_blocks: int
) -> torch.Tensor:
    """Return the (n_visual_tokens, width of the language model) embeddings of images, in order.

    `features` are prefix features after `n_blocks` blocks, or raw patches where `n_blocks` is -1.
    """
    together = torch.cat(list(features))
    if n_blocks < 0:
        together = visual.patch_embed(together)
    return visual.merger(_blocks(visual, together, grids, max(n_blocks, 0), len(visual.blocks)))


def block_parts(block: nn.Module) -> list[nn.Module]:
    """Return the modules of a block that a pass calls, each once, in their order."""
    return [block.norm1, block.attn.qkv, block.attn.proj, block.norm2, block.mlp]  # type: ignore[list-item,union-attr]


def _blocks(visual: Any, features: torch.Tensor, grids: Sequence[Grid], first: int, last: int) -> torch.Tensor:
    """Pass all images' (n_patches of all, width) features through some blocks."""
    if first == last:
        return features
    position_ids = get_vision_position_ids(torch.tensor(grids), visual.spatial_merge_size).to(features.device)
    cos, sin = visual.rotary_pos_emb(features, position_ids)
    for block in visual.blocks[first:last]:
        features = features + _attention(block.attn, block.norm1(features), _lengths(grids), cos, sin)
        features = features + block.mlp(block.norm2(features))
    return features


def _attention(
    attention: Any, features: torch.Tensor, lengths: Sequence[int], cos: torch.Tensor, sin: torch.Tensor
) -> torch.Tensor:
    """Attend within each image: those of one length in one call."""
    query, key, value = attention.qkv(features).view(len(features), 3, attention.num_heads, -1).unbind(1)
    query, key = apply_rotary_pos_emb_vision(query, key, cos, sin)
    n_images = len(lengths)
    if lengths.count(lengths[0]) == n_images:
        shape = (n_images, lengths[0], *query.shape[1:])
        mixed = _mix(query.view(shape), key.view(shape), value.view(shape), attention.scaling)
        return attention.proj(mixed.reshape(len(features), -1))
    parts = [tensor.split(list(lengths)) for tensor in (query, key, value)]
    results: list[Any] = [None] * n_images
    for length in dict.fromkeys(lengths):
        places = [i for i, other in enumerate(lengths) if other == length]
        some = [torch.stack([part[i] for i in places]) for part in parts]
        mixed = _mix(some[0], some[1], some[2], attention.scaling)
        for i, one in zip(places, mixed, strict=True):
            results[i] = one
    return attention.proj(torch.cat(results).flatten(1))


def _mix(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scaling: float) -> torch.Tensor:
    """Return the (images, patches, heads, width of a head) attention of tensors of that shape."""
    query, key, value = (tensor.transpose(1, 2) for tensor in (query, key, value))
    return functional.scaled_dot_product_attention(query, key, value, scale=scaling).transpose(1, 2)


def _lengths(grids: Sequence[Grid]) -> list[int]:
    return [frames * rows * columns for frames, rows, columns in grids]


def _learns(module: nn.Module) -> bool:
    return any(parameter.requires_grad for parameter in module.parameters())
