"""The vision tower in two parts: a frozen prefix that is computed once per picture, and the part that learns.

`Qwen2VisionTransformer` runs all its blocks in one call and attends picture by picture. Here pictures of one grid
run together as a (pictures, patches, width) tensor, and the tower can be left and entered between two blocks. Both
give what the plain call gives (tests/test_vision.py).
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn
from torch.nn import functional
from transformers.models.qwen2_vl.modeling_qwen2_vl import apply_rotary_pos_emb_vision
from transformers.vision_utils import get_vision_position_ids

from skincare.batches import Grid


def prefix_length(visual: Any) -> int:
    """Return how many leading blocks hold no trainable parameter; -1 when the patch embedding itself learns."""
    if _learns(visual.patch_embed):
        return -1
    return next((i for i, block in enumerate(visual.blocks) if _learns(block)), len(visual.blocks))


@torch.no_grad()
def prefix_states(visual: Any, patches: Sequence[torch.Tensor], grids: Sequence[Grid], n_blocks: int) -> list:
    """Return each picture's (n_patches, width) states after the first `n_blocks` blocks, without a graph."""

    def run(pixels: torch.Tensor, grid: Grid) -> torch.Tensor:
        n_pictures, n_patches, _ = pixels.shape
        states = visual.patch_embed(pixels.flatten(0, 1)).view(n_pictures, n_patches, -1)
        return _blocks(visual, states, grid, 0, n_blocks)

    return _by_grid(run, [p.to(visual.get_dtype()) for p in patches], grids)


def embeddings(visual: Any, states: Sequence[torch.Tensor], grids: Sequence[Grid], n_blocks: int) -> torch.Tensor:
    """Return the (n_visual_tokens, width of the language model) embeddings of pictures, in order.

    `states` are prefix states after `n_blocks` blocks, or raw patches where `n_blocks` is -1.
    """

    def run(batch: torch.Tensor, grid: Grid) -> torch.Tensor:
        n_pictures, n_patches, _ = batch.shape
        if n_blocks < 0:
            batch = visual.patch_embed(batch.flatten(0, 1)).view(n_pictures, n_patches, -1)
        batch = _blocks(visual, batch, grid, max(n_blocks, 0), len(visual.blocks))
        return visual.merger(batch.flatten(0, 1)).view(n_pictures, -1, visual.config.hidden_size)

    return torch.cat(_by_grid(run, states, grids))


def _by_grid(
    run: Callable[[torch.Tensor, Grid], torch.Tensor], pictures: Sequence[torch.Tensor], grids: Sequence[Grid]
) -> list[torch.Tensor]:
    """Run pictures of one grid together and return the results in the pictures' order."""
    results: list[Any] = [None] * len(pictures)
    for grid in dict.fromkeys(grids):
        places = [i for i, other in enumerate(grids) if other == grid]
        outputs = run(torch.stack([pictures[i] for i in places]), grid)
        for i, output in zip(places, outputs, strict=True):
            results[i] = output
    return results


def _blocks(visual: Any, states: torch.Tensor, grid: Grid, first: int, last: int) -> torch.Tensor:
    if first == last:
        return states
    position_ids = get_vision_position_ids(torch.tensor([grid]), visual.spatial_merge_size).to(states.device)
    cos, sin = visual.rotary_pos_emb(states, position_ids)
    for block in visual.blocks[first:last]:
        states = states + _attention(block.attn, block.norm1(states), cos, sin)
        states = states + block.mlp(block.norm2(states))
    return states


def _attention(attention: Any, states: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """Attend within each picture of a (pictures, patches, width) tensor."""
    n_pictures, n_patches, width = states.shape
    heads = (n_pictures, n_patches, 3, attention.num_heads, width // attention.num_heads)
    query, key, value = attention.qkv(states).view(heads).unbind(2)
    query, key = apply_rotary_pos_emb_vision(query, key, cos, sin)
    mixed = functional.scaled_dot_product_attention(
        query.transpose(1, 2), key.transpose(1, 2), value.transpose(1, 2), scale=attention.scaling
    )
    return attention.proj(mixed.transpose(1, 2).reshape(n_pictures, n_patches, width))


def _learns(module: nn.Module) -> bool:
    return any(parameter.requires_grad for parameter in module.parameters())
