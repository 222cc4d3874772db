"""The prompt prefix: the text before the image, the same in every prompt, whose keys and values are cached.

Frozen language layers process it once. Trainable layers process it in every pass, for its gradients, but once for all
images of the pass.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers import DynamicCache

from skincare.modeling.language_layers import causal_mask, run_layers
from skincare.modeling.staging import on_device

# Of language layers, (1, heads, T, width) each.
KeysValues = tuple[tuple[torch.Tensor, torch.Tensor], ...]


@dataclass(frozen=True)
class PromptPrefix:
    """The output of the frozen language layers, from the first on, for a text.

    keys_values: of each frozen layer; hidden: (1, T, width), the input of the next layer.
    """

    keys_values: KeysValues
    hidden: torch.Tensor


class PromptPrefixCache:
    """Computes prompt prefixes with a Qwen2VLTextModel; caches the output of its frozen layers."""

    def __init__(self, text_model: Any) -> None:
        self._text_model = text_model
        self.prefixes: dict[tuple[int, ...], PromptPrefix] = {}

    @property
    def n_frozen_layers(self) -> int:
        """Return the number of frozen language layers before the first trainable one; 0 if the embeddings train."""
        stages = [self._text_model.embed_tokens, *self._text_model.layers]
        trainable = (i for i, stage in enumerate(stages) if any(one.requires_grad for one in stage.parameters()))
        return max(0, next(trainable, len(stages)) - 1)

    def read(self, tokens: Sequence[int], n_rows: int) -> DynamicCache:
        """Return the keys and values of all language layers for a prefix, expanded to a batch of `n_rows`."""
        tokens, n_frozen = tuple(tokens), self.n_frozen_layers
        prefix = self.prefixes.get(tokens)
        if prefix is None or len(prefix.keys_values) != n_frozen:
            prefix = self._compute_frozen(tokens, n_frozen)
            if n_frozen:
                self.prefixes[tokens] = prefix
        cache = DynamicCache()
        for i, (keys, values) in enumerate(prefix.keys_values):
            cache.update(keys, values, i)
        self._compute(prefix.hidden, slice(n_frozen, None), cache, n_outputs=0)
        return DynamicCache([tuple(one.expand(n_rows, -1, -1, -1) for one in layer) for layer in _keys_values(cache)])

    def _compute_frozen(self, tokens: Sequence[int], n_frozen: int) -> PromptPrefix:
        embeddings = self._text_model.embed_tokens
        words = embeddings(on_device(torch.tensor([tokens]), embeddings.weight.device))
        if not n_frozen:
            return PromptPrefix((), words)
        cache = DynamicCache()
        with torch.no_grad():
            hidden = self._compute(words, slice(n_frozen), cache)
        return PromptPrefix(_keys_values(cache), hidden)

    def _compute(
        self, hidden: torch.Tensor, layers: slice, cache: DynamicCache, n_outputs: int | None = None
    ) -> torch.Tensor:
        """Pass (1, T, width) hidden states through some layers, which append their keys and values to the cache."""
        positions = torch.arange(hidden.shape[1], device=hidden.device).expand(3, 1, -1)
        mask = causal_mask(self._text_model, hidden, None, None)
        return run_layers(self._text_model, hidden, positions, mask, cache, layers, n_outputs=n_outputs)


def _keys_values(cache: Any) -> KeysValues:
    return tuple((layer.keys, layer.values) for layer in cache.layers)
