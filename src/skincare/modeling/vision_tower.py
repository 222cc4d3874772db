"""The vision tower in two parts: frozen blocks, whose output is cached per image, and the rest.

transformers runs all blocks in one call and attends image by image, or window by window. Here a pass can end and start
between two blocks, and runs of equal length attend in one call; the results are those of the plain call
(tests/test_vision_tower.py, tests/test_families.py). Each module is called once for all images: sharded weights are
gathered per call, so every process must make the same number of calls.

An image's features are one (n_patches, feature width) tensor: the output of the last frozen block, then, for a family
with DeepStack, the merged output of the frozen intermediate blocks, a quarter of a visual token in each of its rows.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn
from torch.nn import functional
from transformers.models.qwen2_vl.modeling_qwen2_vl import apply_rotary_pos_emb_vision
from transformers.vision_utils import get_vision_position_ids

from skincare.modeling.families.base import image_lengths
from skincare.modeling.families.registry import family_of
from skincare.modeling.pass_functions import vision_mlp
from skincare.modeling.prompt_encoder import Grid
from skincare.modeling.staging import on_device


def count_frozen_blocks(visual: Any) -> int:
    """Return the number of leading blocks without trainable parameters; -1 if the patch embedding is trainable.

    A trainable DeepStack merger needs its block's output and ends the frozen part before that block.
    """
    family = family_of(visual.config)
    if any(_is_trainable(one) for one in (visual.patch_embed, *family.position_modules(visual))):
        return -1
    trainable = {i for i, block in enumerate(visual.blocks) if _is_trainable(block)}
    trainable |= {i for i, merger in family.deepstack_mergers(visual).items() if _is_trainable(merger)}
    return min(trainable, default=len(visual.blocks))


def feature_width(visual: Any, n_blocks: int) -> int:
    """Return the width of the features after `n_blocks` blocks, or of the patches if `n_blocks` is -1."""
    if n_blocks < 0:
        return visual.patch_embed.proj.weight[0].numel()
    family = family_of(visual.config)
    n_cached = sum(i < n_blocks for i in family.deepstack_mergers(visual))
    width = family.vision_width(visual.config)
    return width + n_cached * _deepstack_row_width(visual) if n_cached else width


def feature_dtype(visual: Any) -> torch.dtype:
    """Return the dtype of the vision tower's weights before its last block."""
    return visual.patch_embed.proj.weight.dtype


@torch.no_grad()
def frozen_features(visual: Any, patches: Sequence[torch.Tensor], grids: Sequence[Grid], n_blocks: int) -> list:
    """Return each image's (n_patches, feature width) features after the first `n_blocks` blocks, without a graph."""
    dtype = feature_dtype(visual)
    embedded = _embed(visual, torch.cat([one.to(dtype) for one in patches]), grids)
    features, deepstack = _blocks(visual, embedded, grids, 0, n_blocks)
    if deepstack:
        width = _deepstack_row_width(visual)
        features = torch.cat([features, *(one.reshape(-1, width) for one in deepstack)], dim=1)
    return list(features.split(image_lengths(grids)))


def visual_embeddings(
    visual: Any, features: Sequence[torch.Tensor], grids: Sequence[Grid], n_blocks: int,
    mlp: Callable[..., torch.Tensor] = vision_mlp,
) -> torch.Tensor:  # fmt: skip
    """Return the (n_visual_tokens, n_levels * width of the language model) embeddings of images, in order.

    The first level is the input of the language model; the others, of families with DeepStack, are added to the output
    of its first layers, one each. `features` are those after `n_blocks` blocks, or the patches if `n_blocks` is -1;
    `mlp` computes the second half of a block.
    """
    together, cached = torch.cat(list(features)), []
    if n_blocks < 0:
        together = _embed(visual, together, grids)
    elif together.shape[1] > (width := family_of(visual.config).vision_width(visual.config)):
        rows = together[:, width:].split(_deepstack_row_width(visual), dim=1)
        cached = [one.reshape(-1, visual.config.out_hidden_size) for one in rows]
        together = together[:, :width]
    together, computed = _blocks(visual, together, grids, max(n_blocks, 0), len(visual.blocks), mlp)
    merged = visual.merger(together)
    order = family_of(visual.config).block_order(visual, grids)
    if order is not None:
        merged = merged.index_select(0, on_device(order.argsort(), merged.device))
    deepstack = [*cached, *computed]
    return torch.cat([merged, *(one.to(merged.dtype) for one in deepstack)], dim=1) if deepstack else merged


def block_parts(block: nn.Module) -> list[nn.Module]:
    """Return the modules that a pass calls in a block, in order."""
    return [block.norm1, block.attn.qkv, block.attn.proj, block.norm2, block.mlp]  # type: ignore[list-item,union-attr]


def mergers(visual: Any) -> list[nn.Module]:
    """Return the modules that map vision features to the language model's width."""
    return [visual.merger, *family_of(visual.config).deepstack_mergers(visual).values()]


def _embed(visual: Any, patches: torch.Tensor, grids: Sequence[Grid]) -> torch.Tensor:
    """Return the (n_patches, width) input of the first block, in the order of the blocks."""
    family, features = family_of(visual.config), visual.patch_embed(patches)
    positions = family.patch_positions(visual, grids)
    if positions is not None:
        features = features + positions.to(features.dtype)
    return _in_block_order(features, visual, family.block_order(visual, grids))


def _blocks(
    visual: Any, features: torch.Tensor, grids: Sequence[Grid], first: int, last: int,
    mlp: Callable[..., torch.Tensor] = vision_mlp,
) -> tuple[torch.Tensor, list[torch.Tensor]]:  # fmt: skip
    """Pass all images' (n_patches of all, width) features through the blocks `first` to `last`.

    Return also the (n_visual_tokens, width of the language model) DeepStack output of these blocks.
    """
    deepstack: list[torch.Tensor] = []
    if first == last:
        return features, deepstack
    family = family_of(visual.config)
    lengths, order = family.attention_lengths(visual, grids), family.block_order(visual, grids)
    deepstack_mergers = family.deepstack_mergers(visual)
    position_ids = get_vision_position_ids(torch.tensor(grids), visual.spatial_merge_size)
    cos, sin = visual.rotary_pos_emb(features, on_device(_in_block_order(position_ids, visual, order), features.device))
    for i, block in enumerate(visual.blocks[first:last], start=first):
        features = features + _attention(block.attn, block.norm1(features), lengths[i], cos, sin)
        features = mlp(block, features)
        if i in deepstack_mergers:
            deepstack.append(deepstack_mergers[i](features))
    return features, deepstack


def _in_block_order(rows: torch.Tensor, visual: Any, order: torch.Tensor | None) -> torch.Tensor:
    """Sort (n_patches, ...) rows by merge block."""
    if order is None:
        return rows
    by_merge_block = rows.unflatten(0, (len(order), visual.spatial_merge_size**2))
    return by_merge_block.index_select(0, on_device(order, rows.device)).flatten(0, 1)


def _attention(
    attention: Any, features: torch.Tensor, lengths: Sequence[int], cos: torch.Tensor, sin: torch.Tensor
) -> torch.Tensor:
    """Attend within each run of patches, of the given lengths; runs of equal length in one call."""
    query, key, value = attention.qkv(features).view(len(features), 3, attention.num_heads, -1).unbind(1)
    query, key = apply_rotary_pos_emb_vision(query, key, cos, sin)
    n_runs = len(lengths)
    if lengths.count(lengths[0]) == n_runs:
        shape = (n_runs, lengths[0], *query.shape[1:])
        mixed = _mix(query.view(shape), key.view(shape), value.view(shape), attention.scaling)
        return attention.proj(mixed.reshape(len(features), -1))
    parts = [tensor.split(list(lengths)) for tensor in (query, key, value)]
    results: list[Any] = [None] * n_runs
    for length in dict.fromkeys(lengths):
        places = [i for i, other in enumerate(lengths) if other == length]
        query_part, key_part, value_part = (torch.stack([part[i] for i in places]) for part in parts)
        mixed = _mix(query_part, key_part, value_part, attention.scaling)
        for i, one in zip(places, mixed, strict=True):
            results[i] = one
    return attention.proj(torch.cat(results).flatten(1))


def _mix(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scaling: float) -> torch.Tensor:
    """Return the (runs, patches, heads, width of a head) attention of tensors of that shape."""
    query, key, value = (tensor.transpose(1, 2) for tensor in (query, key, value))
    return functional.scaled_dot_product_attention(query, key, value, scale=scaling).transpose(1, 2)


def _deepstack_row_width(visual: Any) -> int:
    return visual.config.out_hidden_size // visual.spatial_merge_size**2


def _is_trainable(module: nn.Module) -> bool:
    return any(parameter.requires_grad for parameter in module.parameters())
