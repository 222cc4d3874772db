"""The vision tower in two parts: frozen blocks, whose output is cached per image, and the rest.

`Qwen2VisionTransformer` runs all blocks in one call and attends image by image. Here a pass can end and start between
two blocks, and images of one size attend in one call; the results are those of the plain call
(tests/test_vision_tower.py). Each module is called once for all images: sharded weights are gathered per call, so every
process must make the same number of calls.
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
    """Return the number of leading blocks without trainable parameters; -1 if the patch embedding is trainable."""
    if _is_trainable(visual.patch_embed):
        return -1
    return next((i for i, block in enumerate(visual.blocks) if _is_trainable(block)), len(visual.blocks))


@torch.no_grad()
def frozen_features(visual: Any, patches: Sequence[torch.Tensor], grids: Sequence[Grid], n_blocks: int) -> list:
    """Return each image's (n_patches, width) features after the first `n_blocks` blocks, without a graph."""
    features = visual.patch_embed(torch.cat([one.to(visual.get_dtype()) for one in patches]))
    return list(_blocks(visual, features, grids, 0, n_blocks).split(_lengths(grids)))


def visual_embeddings(
    visual: Any, features: Sequence[torch.Tensor], grids: Sequence[Grid], n_blocks: int
) -> torch.Tensor:
    """Return the (n_visual_tokens, width of the language model) embeddings of images, in order.

    `features` are those after `n_blocks` blocks, or the patches if `n_blocks` is -1.
    """
    together = torch.cat(list(features))
    if n_blocks < 0:
        together = visual.patch_embed(together)
    return visual.merger(_blocks(visual, together, grids, max(n_blocks, 0), len(visual.blocks)))


def block_parts(block: nn.Module) -> list[nn.Module]:
    """Return the modules that a pass calls in a block, in order."""
    return [block.norm1, block.attn.qkv, block.attn.proj, block.norm2, block.mlp]  # type: ignore[list-item,union-attr]


def _blocks(visual: Any, features: torch.Tensor, grids: Sequence[Grid], first: int, last: int) -> torch.Tensor:
    """Pass all images' (n_patches of all, width) features through the blocks `first` to `last`."""
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
    """Attend within each image; images of equal length in one call."""
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
        query_part, key_part, value_part = (torch.stack([part[i] for i in places]) for part in parts)
        mixed = _mix(query_part, key_part, value_part, attention.scaling)
        for i, one in zip(places, mixed, strict=True):
            results[i] = one
    return attention.proj(torch.cat(results).flatten(1))


def _mix(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scaling: float) -> torch.Tensor:
    """Return the (images, patches, heads, width of a head) attention of tensors of that shape."""
    query, key, value = (tensor.transpose(1, 2) for tensor in (query, key, value))
    return functional.scaled_dot_product_attention(query, key, value, scale=scaling).transpose(1, 2)


def _lengths(grids: Sequence[Grid]) -> list[int]:
    return [frames * rows * columns for frames, rows, columns in grids]


def _is_trainable(module: nn.Module) -> bool:
    return any(parameter.requires_grad for parameter in module.parameters())
