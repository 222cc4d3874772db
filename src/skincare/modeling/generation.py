"""Parts of greedy generation: its result, the tokens so far, and the limits of the next ones."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Generated:
    """The generated tokens of one prompt, without the end token; not finished if the limit cut them off.

    log_probabilities: of the tokens, where they were requested.
    """

    tokens: tuple[int, ...]
    is_finished: bool
    log_probabilities: tuple[float, ...] = ()


def generated_rows(steps: Sequence[torch.Tensor], n_rows: int) -> list[list[int]]:
    """Return the tokens of each row, from one (B,) tensor of tokens per step."""
    return torch.stack(list(steps), dim=1).tolist() if steps else [[] for _ in range(n_rows)]


def keep_only(logits: torch.Tensor, allowed: Sequence[Sequence[int]]) -> torch.Tensor:
    """Return (B, vocabulary) logits with -inf for all but the allowed tokens of each row."""
    kept = torch.full_like(logits, float("-inf"))
    for row, tokens in enumerate(allowed):
        kept[row, list(tokens)] = logits[row, list(tokens)]
    return kept


def until_end(tokens: list[int], end_tokens: list[int]) -> Generated:
    """Return the tokens before the first end token."""
    for i, token in enumerate(tokens):
        if token in end_tokens:
            return Generated(tuple(tokens[:i]), is_finished=True)
    return Generated(tuple(tokens), is_finished=False)
