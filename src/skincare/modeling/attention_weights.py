"""Attention weights of one position per prompt, recorded during a pass that computes attention with SDPA.

SDPA returns no weights. The recorder receives the queries and keys of every language layer, after rotary positions and
with the cached prompt prefix, and computes the softmax of one query per prompt: memory grows with the length of the
prompt, not with its square. The output of the pass does not change.

Attention rollout follows the weights through the layers: each layer passes on half of a position's own input and half
of what it attends to. Source: S. Abnar and W. Zuidema, "Quantifying attention flow in transformers", 2020.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import torch
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS, AttentionMaskInterface
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

_NAME: Final = "sdpa_with_recorded_weights"
# Rollout needs the weights of all positions, which are computed for this many at a time.
_CHUNK: Final = 64


class AttentionRecorder:
    """Records the attention of one position per prompt in a batch of B prompts of T tokens.

    positions: (B,) indices into the T tokens; is_image: (B, T), which of them are visual tokens; n_prefix: number of
    tokens of the cached prompt prefix, which every position attends to.
    """

    def __init__(self, positions: torch.Tensor, is_image: torch.Tensor, n_prefix: int) -> None:
        self._positions = positions
        self._n_keys = n_prefix + is_image.shape[1]
        self._layers: list[torch.Tensor] = []
        # (B, T, n_visual): how much each token holds of each visual token; before the first layer, of itself.
        n_visual = int(is_image.sum(dim=1).max())
        places = torch.arange(n_visual, device=is_image.device)
        self._held = ((is_image.cumsum(dim=1) - 1)[..., None] == places).float() * is_image[..., None]

    @property
    def weights(self) -> torch.Tensor:
        """Return the (n_layers, B, n_heads, n_prefix + T) attention weights of the positions, float32."""
        return torch.stack(self._layers)

    @property
    def rollout(self) -> torch.Tensor:
        """Return the (B, n_visual) attention rollout from the positions to each prompt's visual tokens, in order.

        Prompts with fewer visual tokens than the longest have zeros at the end.
        """
        return self._held[torch.arange(len(self._held), device=self._held.device), self._positions]

    def attend(
        self, module: Any, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor,
        attention_mask: torch.Tensor | None, *, scaling: float, **options: Any,
    ) -> tuple[torch.Tensor, None]:  # fmt: skip
        """Compute attention as transformers' SDPA does, and record the weights of the positions."""
        # The layers also compute the prompt prefix, on its own.
        if key.shape[2] == self._n_keys:
            with torch.no_grad():
                self._record(query.float() * scaling, key.float(), attention_mask)
        return sdpa_attention_forward(module, query, key, value, attention_mask, scaling=scaling, **options)

    def _record(self, query: torch.Tensor, key: torch.Tensor, mask: torch.Tensor | None) -> None:
        self._layers.append(_weights(query, key, mask, self._positions[:, None])[:, :, 0])
        n_tokens, held = query.shape[2], []
        for rows in torch.arange(n_tokens, device=query.device).split(_CHUNK):
            weights = _weights(query, key, mask, rows.expand(len(query), -1)).mean(dim=1)
            # The prefix comes before the image and holds nothing of it.
            held.append((weights[..., -n_tokens:] @ self._held + self._held[:, rows]) / 2)
        self._held = torch.cat(held, dim=1)


@contextmanager
def recorded_attention(
    text_model: Any, positions: torch.Tensor, is_image: torch.Tensor, n_prefix: int
) -> Iterator[AttentionRecorder]:  # fmt: skip
    """Record the attention weights of the one pass of a language model that happens in this context."""
    recorder, config = AttentionRecorder(positions, is_image, n_prefix), text_model.config
    usual = config._attn_implementation
    AttentionMaskInterface.register(_NAME, ALL_MASK_ATTENTION_FUNCTIONS["sdpa"])
    ALL_ATTENTION_FUNCTIONS[_NAME] = recorder.attend
    config._attn_implementation = _NAME
    try:
        yield recorder
    finally:
        config._attn_implementation = usual
        del ALL_ATTENTION_FUNCTIONS[_NAME]


def _weights(
    query: torch.Tensor, key: torch.Tensor, mask: torch.Tensor | None, rows: torch.Tensor
) -> torch.Tensor:  # fmt: skip
    """Return the (B, n_heads, R, K) attention weights of R rows per prompt.

    query: (B, n_heads, T, width), scaled; key: (B, n_key_heads, K, width); mask: (B or 1, 1, T, K), boolean or added to
    the scores, None for a causal mask; rows: (B, R) indices into T.
    """
    n_prompts, n_tokens, n_keys = len(query), query.shape[2], key.shape[2]
    batch = torch.arange(n_prompts, device=query.device)[:, None]
    # Consecutive query heads share a key head.
    grouped = query.transpose(1, 2)[batch, rows].unflatten(2, (key.shape[1], -1))
    scores = torch.einsum("brkgd,bkld->bkgrl", grouped, key).flatten(1, 2)
    if mask is None:
        ends = rows + n_keys - n_tokens
        mask_of_rows = torch.arange(n_keys, device=query.device) <= ends[..., None]
    else:
        mask_of_rows = mask.expand(n_prompts, -1, -1, -1)[:, 0][batch, rows]
    if mask_of_rows.dtype == torch.bool:
        scores = scores.masked_fill(~mask_of_rows[:, None], float("-inf"))
    else:
        scores = scores + mask_of_rows[:, None]
    # A padding row without any key has no weights.
    return scores.softmax(dim=-1).nan_to_num()
