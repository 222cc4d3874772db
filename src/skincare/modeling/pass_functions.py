"""The parts of a training pass that torch.compile can fuse: a language layer, and the MLP of a vision block."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

# Keys and values of earlier tokens, (B, heads, n_cached, width of a head) each.
KeysValues = tuple[torch.Tensor, torch.Tensor]


class CachedKeysValues:
    """The cache of one layer in a pass that keeps nothing for later; equal for all layers, so one graph serves all."""

    def __init__(self, keys_values: KeysValues) -> None:
        self._keys, self._values = keys_values

    def update(self, keys: torch.Tensor, values: torch.Tensor, *_: Any, **__: Any) -> KeysValues:
        """Return the cached keys and values followed by the given ones."""
        return torch.cat([self._keys, keys], dim=2), torch.cat([self._values, values], dim=2)


def language_layer(
    layer: Any, hidden: torch.Tensor, mask: Any, rotary: tuple[torch.Tensor, torch.Tensor], cached: KeysValues | None
) -> torch.Tensor:
    """Return the (B, T, width) output of a language layer of transformers."""
    past = None if cached is None else CachedKeysValues(cached)
    return layer(hidden, attention_mask=mask, position_embeddings=rotary, past_key_values=past, use_cache=False)


def vision_mlp(block: Any, features: torch.Tensor) -> torch.Tensor:
    """Return the (n_patches, width) output of a vision block from that of its attention."""
    return features + block.mlp(block.norm2(features))


@dataclass(frozen=True)
class PassFunctions:
    """The functions that a training pass calls, plain or compiled.

    With `length_multiple` above 1, prompts are padded to a multiple of it, so that compiled layers see few shapes.
    """

    language_layer: Callable[..., torch.Tensor] = language_layer
    vision_mlp: Callable[..., torch.Tensor] = vision_mlp
    length_multiple: int = 1
