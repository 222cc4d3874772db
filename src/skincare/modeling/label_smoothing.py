"""Label smoothing of the answer's tokens: a part of the target probability goes to the other possible continuations.

The possible continuations of a label are those of the labels' token trie. Smoothing over the whole vocabulary would
train every label towards 151,936 tokens that never follow. Structured answers have no trie and are smoothed over the
vocabulary, as `torch.nn.functional.cross_entropy` does it.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch.nn import functional

from skincare.modeling.prompt_encoder import PromptEncoder
from skincare.modeling.staging import on_device
from skincare.modeling.token_trie import build_trie
from skincare.prompts import target_of


@dataclass(frozen=True)
class SmoothedTargets:
    """The target distributions of N answer tokens, in the order of the batch's rows.

    tokens: (N, K) int64, the possible continuations, padded; weights: (N, K), their mean as a weighted sum, 0 for
    padding. Without both, every token of the vocabulary is a continuation.
    """

    amount: float
    tokens: torch.Tensor | None = None
    weights: torch.Tensor | None = None

    def token_losses(self, logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Return the (N,) losses of fp32 (N, vocabulary) logits: (1 - amount) * -log p(target) + amount * mean -log p.

        The mean is that of the possible continuations, the target among them.
        """
        if self.tokens is None or self.weights is None:
            return functional.cross_entropy(logits, targets, reduction="none", label_smoothing=self.amount)
        of_target = logits.gather(1, targets[:, None])[:, 0]
        mean = (logits.gather(1, self.tokens) * self.weights).sum(dim=1)
        return logits.logsumexp(dim=1) - (1 - self.amount) * of_target - self.amount * mean


class LabelSmoothing:
    """Label smoothing by `amount`, over the labels' trie or, for structured answers, over the vocabulary."""

    def __init__(self, amount: float, encoder: PromptEncoder) -> None:
        self.amount = amount
        self._continuations: dict[str, list[list[int]]] | None = None
        if target_of(encoder.labels) == "category":
            names = encoder.labels.names
            trie = build_trie(encoder, names)
            tokens = {name: encoder.answer_tokens(name) for name in names}
            self._continuations = {
                name: [trie.next_tokens(answer[:i]) for i in range(len(answer))] for name, answer in tokens.items()
            }

    def targets(self, answers: Sequence[str], device: torch.device) -> SmoothedTargets:
        """Return the targets of a batch of answers."""
        if self._continuations is None:
            return SmoothedTargets(self.amount)
        rows = [tokens for answer in answers for tokens in self._continuations[answer]]
        width = max(map(len, rows))
        tokens = torch.tensor([row + [0] * (width - len(row)) for row in rows])
        counts = torch.tensor([[len(row)] for row in rows])
        weights = (torch.arange(width) < counts) / counts
        return SmoothedTargets(self.amount, on_device(tokens, device), on_device(weights, device))
