"""The text before the image, the same in every prompt: what the language layers keep of it, read as seldom as may be.

Frozen layers read it once for ever; those that learn read it anew in every pass, as their gradients want it, but once
for all images of the pass.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers import DynamicCache
from transformers.masking_utils import create_causal_mask

# Of language layers, (1, heads, T, width) each.
KeysValues = tuple[tuple[torch.Tensor, torch.Tensor], ...]


@dataclass(frozen=True)
class PromptPrefix:
    """What the first language layers, which nobody trains, make of a text.

    keys_values: what they keep of it; states: (1, T, width), what the next layer gets.
    """

    keys_values: KeysValues
    states: torch.Tensor


class PromptPrefixCache:
    """Reads openings with a Qwen2VLTextModel, and remembers what its frozen layers make of them."""

    def __init__(self, text_model: Any) -> None:
        self._text_model = text_model
        self.kept: dict[tuple[int, ...], PromptPrefix] = {}

    @property
    def n_frozen_layers(self) -> int:
        """Return how many language layers, from the first on, nobody trains; none where words learn."""
        stages = [self._text_model.embed_tokens, *self._text_model.layers]
        learns = (i for i, stage in enumerate(stages) if any(one.requires_grad for one in stage.parameters()))
        return max(0, next(learns, len(stages)) - 1)

    def read(self, tokens: Sequence[int], n_rows: int) -> DynamicCache:
        """Return what all language layers keep of an opening, for so many rows."""
        tokens, n_frozen = tuple(tokens), self.n_frozen_layers
        opening = self.kept.get(tokens)
        if opening is None or len(opening.keys_values) != n_frozen:
            opening = self._read_frozen(tokens, n_frozen)
            if n_frozen:
                self.kept[tokens] = opening
        cache = DynamicCache()
        for i, (keys, values) in enumerate(opening.keys_values):
            cache.update(keys, values, i)
        self._read_on(opening.states, slice(n_frozen, None), cache)
        return DynamicCache([tuple(one.expand(n_rows, -1, -1, -1) for one in layer) for layer in _keys_values(cache)])

    def _read_frozen(self, tokens: Sequence[int], n_frozen: int) -> PromptPrefix:
        embeddings = self._text_model.embed_tokens
        words = embeddings(torch.tensor([tokens], device=embeddings.weight.device))
        if not n_frozen:
            return PromptPrefix((), words)
        cache = DynamicCache()
        with torch.no_grad():
            states = self._read_on(words, slice(n_frozen), cache)
        return PromptPrefix(_keys_values(cache), states)

    def _read_on(self, states: torch.Tensor, layers: slice, cache: DynamicCache) -> torch.Tensor:
        """Take the (1, T, width) states of a text through some layers, which leave keys and values in the cache."""
        text = self._text_model
        positions = torch.arange(states.shape[1], device=states.device).expand(3, 1, -1)
        turned = text.rotary_emb(states, positions)
        mask = create_causal_mask(text.config, inputs_embeds=states, attention_mask=None, past_key_values=None)
        for layer in text.layers[layers]:
            states = layer(
                states, attention_mask=mask, position_embeddings=turned, past_key_values=cache, use_cache=True
            )
        return states


def _keys_values(cache: Any) -> KeysValues:
    return tuple((layer.keys, layer.values) for layer in cache.layers)
