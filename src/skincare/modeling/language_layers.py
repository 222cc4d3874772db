"""A pass over language layers: embeddings in, hidden states out, with the mask of the fastest attention kernel.

The loop is that of transformers, without what makes the host wait for a GPU: it inserts DeepStack embeddings at given
positions instead of under a mask of bools, and reads no value of an attention mask. The last layer computes only the
outputs that are needed: all tokens give it keys and values, the last few also queries.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn import functional
from torch.nn.attention.bias import CausalBias, causal_lower_right
from transformers.masking_utils import create_causal_mask
from transformers.models.qwen2_vl.modeling_qwen2_vl import rotate_half

from skincare.modeling.staging import on_device


@dataclass(frozen=True)
class DeepStack:
    """Visual embeddings that are added to the output of the first language layers.

    levels: (n_visual_tokens, width) each, one per layer; positions: (n_visual_tokens,) int64, in the flattened tokens.
    """

    levels: Sequence[torch.Tensor] = ()
    positions: torch.Tensor | None = None


def run_layers(
    text_model: Any, hidden: torch.Tensor, position_ids: torch.Tensor, mask: Any, cache: Any = None,
    layers: slice = slice(None), deepstack: DeepStack = DeepStack(),
    function: Callable[..., torch.Tensor] | None = None, n_outputs: int | None = None,
) -> torch.Tensor:  # fmt: skip
    """Return the (B, n_outputs, width) output of language layers, which append their keys and values to the cache.

    With a `function` (`skincare.modeling.pass_functions`) for a layer, all but the last only read the cache.

    hidden: (B, T, width); position_ids: (3, B, T) int64; mask: what `causal_mask` returns, or a (B, 1, T, n_keys) bool
    tensor; n_outputs: how many of the last tokens to return, by default all. The first layer adds the first level of
    `deepstack`, so `layers` must then start at the first.
    """
    n_tokens, used = hidden.shape[1], text_model.layers[layers]
    n_outputs = n_tokens if n_outputs is None else n_outputs
    rotary = text_model.rotary_emb(hidden, position_ids)
    for i, layer in enumerate(used):
        if i + 1 == len(used) and n_outputs < n_tokens and i >= len(deepstack.levels):
            return _last_outputs(layer, hidden, n_outputs, mask, rotary, cache)
        if function is not None:
            hidden = function(layer, hidden, mask, rotary, _keys_values(cache, i))
        else:
            hidden = layer(
                hidden, attention_mask=mask, position_embeddings=rotary, past_key_values=cache,
                use_cache=cache is not None,
            )  # fmt: skip
        if i < len(deepstack.levels):
            assert deepstack.positions is not None
            hidden = add_at(hidden, deepstack.positions, deepstack.levels[i])
    return hidden[:, n_tokens - n_outputs :]


def _last_outputs(
    layer: Any, hidden: torch.Tensor, n_outputs: int, mask: Any, rotary: tuple[torch.Tensor, torch.Tensor], cache: Any
) -> torch.Tensor:
    """Return the (B, n_outputs, width) output of a layer for the last tokens, which attend to all tokens."""
    attention, normed = layer.self_attn, layer.input_layernorm(hidden)
    keys, values = (
        project(normed).unflatten(-1, (-1, attention.head_dim)) for project in (attention.k_proj, attention.v_proj)
    )
    keys = (attention.k_norm(keys) if hasattr(attention, "k_norm") else keys).transpose(1, 2)
    cos, sin = (one.unsqueeze(1) for one in rotary)
    keys, values = keys * cos + rotate_half(keys) * sin, values.transpose(1, 2)
    if cache is not None:
        keys, values = cache.update(keys, values, attention.layer_idx)
    start = hidden.shape[1] - n_outputs
    if not n_outputs:
        return hidden[:, start:]
    return layer(
        hidden[:, start:], attention_mask=_last_rows(attention.config, mask, n_outputs, keys),
        position_embeddings=tuple(one[:, start:] for one in rotary), past_key_values=_Given(keys, values),
        use_cache=False,
    )  # fmt: skip


class _Given:
    """A cache that holds the keys and values of all tokens already."""

    def __init__(self, keys: torch.Tensor, values: torch.Tensor) -> None:
        self._keys_values = keys, values

    def update(self, *_: Any, **__: Any) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the keys and values of all tokens."""
        return self._keys_values


def _last_rows(config: Any, mask: Any, n_rows: int, keys: torch.Tensor) -> Any:
    """Return the mask of the last `n_rows` queries, given that of all queries of a pass."""
    if mask is not None and not isinstance(mask, CausalBias):
        # Flash attention takes the (B, n_keys) padding mask.
        return mask if mask.ndim == 2 else mask[:, :, -n_rows:]
    # The last query attends to all keys, and the causal mode of flash attention is the lower right one.
    if n_rows == 1 or config._attn_implementation != "sdpa":
        return None
    n_keys = keys.shape[2]
    if has_lower_right_kernel(keys.device):
        return causal_lower_right(n_rows, n_keys)
    return torch.ones(n_rows, n_keys, dtype=torch.bool, device=keys.device).tril(n_keys - n_rows)[None, None]


def _keys_values(cache: Any, i: int) -> tuple[torch.Tensor, torch.Tensor] | None:
    return None if cache is None else (cache.layers[i].keys, cache.layers[i].values)


def causal_mask(text_model: Any, hidden: torch.Tensor, cache: Any, padding_mask: torch.Tensor | None) -> Any:
    """Return the mask with which (B, T, width) inputs attend to the cache and to the tokens before them.

    `padding_mask` is (B, n_cached + T), None if no token is hidden: then no mask is built where attention kernels have
    a causal mode of their own. After cached keys that is the lower right one, which torch has on CUDA only.
    """
    n_cached, n_tokens = cache.get_seq_length() if cache is not None else 0, hidden.shape[1]
    is_sdpa = text_model.config._attn_implementation == "sdpa"
    if padding_mask is None and is_sdpa and n_cached and n_tokens > 1 and has_lower_right_kernel(hidden.device):
        return causal_lower_right(n_tokens, n_cached + n_tokens)
    return create_causal_mask(
        text_model.config, inputs_embeds=hidden, attention_mask=padding_mask, past_key_values=cache
    )


def tree_mask(
    hidden: torch.Tensor, cache: Any, padding_mask: torch.Tensor | None, ancestors: torch.Tensor
) -> torch.Tensor:  # fmt: skip
    """Return the (B or 1, 1, T, n_cached + T) bool mask of T tree nodes that attend to the cache and to ancestors.

    `padding_mask` is (B, n_cached), None if no cached token is hidden; `ancestors` is (T, T) bool on the CPU.
    """
    tree = on_device(ancestors, hidden.device)[None, None]
    if padding_mask is None:
        return functional.pad(tree, (cache.get_seq_length(), 0), value=True)
    cached = padding_mask[:, None, None].bool().expand(-1, -1, len(ancestors), -1)
    return torch.cat([cached, tree.expand(len(padding_mask), -1, -1, -1)], dim=3)


def has_lower_right_kernel(device: torch.device) -> bool:
    """Return whether attention kernels of a device have a causal mode for fewer queries than keys."""
    return device.type == "cuda"


def copy_at(hidden: torch.Tensor, positions: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
    """Return (B, T, width) states with (n, width) rows at the positions of the flattened tokens."""
    return hidden.flatten(0, 1).index_copy(0, positions, rows.to(hidden.dtype)).view_as(hidden)


def add_at(hidden: torch.Tensor, positions: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
    """Return (B, T, width) states to which (n, width) rows are added at the positions of the flattened tokens."""
    return hidden.flatten(0, 1).index_add(0, positions, rows.to(hidden.dtype)).view_as(hidden)
