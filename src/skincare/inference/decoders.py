"""Four ways to get an answer from the model, behind one call.

generate     free greedy text, read by the parser: the reference's way
constrained  greedy text in which only the 14 names may be said
rank         the exact likelihood of all 14 names, from one pass over the prompt and one over the tree of names
head         a classification head, where the model was trained with one
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, Protocol, get_args

import torch

from skincare.errors import StageError
from skincare.labels import Labels
from skincare.modeling.prompt_encoder import Grid, PromptEncoder
from skincare.modeling.qwen2vl import CachedQwen2VL
from skincare.modeling.settings import DecoderName
from skincare.modeling.token_trie import TokenTrie, build_trie

NAMES: Final[tuple[DecoderName, ...]] = get_args(DecoderName)
MAX_NEW_TOKENS: Final = 30

# Raise it with every change after which a decoder may answer otherwise: answers kept from before are then not used.
VERSION: Final = 1


@dataclass(frozen=True)
class DecoderOutput:
    """What the model said; log_probabilities are those of the 14 categories, empty where the way gives none."""

    text: str
    n_new_tokens: int
    is_finished: bool
    log_probabilities: tuple[float, ...] = ()


class Decoder(Protocol):
    """One way to get answers; its name says which."""

    name: str

    def __call__(
        self, grids: Sequence[Grid], features: Sequence[torch.Tensor], hints: Sequence[str] = ()
    ) -> list[DecoderOutput]:
        """Return an answer for each image, given by its grid and prefix features, and by its hint where there are."""


class GreedyDecoder:
    """Greedy text: free, or, with a tree of names, nothing but one of them."""

    def __init__(self, network: CachedQwen2VL, encoder: PromptEncoder, tree: TokenTrie | None = None) -> None:
        self.name = "generate" if tree is None else "constrained"
        self.network = network
        self.encoder = encoder
        self.next_tokens = tree.next_tokens if tree else None

    def __call__(
        self, grids: Sequence[Grid], features: Sequence[torch.Tensor], hints: Sequence[str] = ()
    ) -> list[DecoderOutput]:
        """Return the text up to the end token, or its first 30 tokens."""
        batch = self.encoder.inference_batch(grids, hints).to(self.network.device)
        generated = self.network.generate(self.encoder, batch, features, MAX_NEW_TOKENS, self.next_tokens)
        return [DecoderOutput(self.encoder.decode(one.tokens), len(one.tokens), one.is_finished) for one in generated]


class RankingDecoder:
    """The likeliest of the 14 names, each scored as a whole with its end token.

    Others than the names may be scored: `combine` makes (B, 14) scores of categories of those of the tree's answers.
    """

    def __init__(
        self, network: CachedQwen2VL, encoder: PromptEncoder, name: str = "rank", tree: TokenTrie | None = None,
        combine: Callable[[torch.Tensor], torch.Tensor] = lambda scores: scores,
    ) -> None:  # fmt: skip
        self.name = name
        self.network = network
        self.encoder = encoder
        self.tree = tree or build_trie(encoder, encoder.labels.names)
        self.combine = combine

    def __call__(
        self, grids: Sequence[Grid], features: Sequence[torch.Tensor], hints: Sequence[str] = ()
    ) -> list[DecoderOutput]:
        """Return the best name, with the log-probabilities of all names given that one of them is said."""
        batch = self.encoder.inference_batch(grids, hints).to(self.network.device)
        scores = self.network.score_labels(batch, features, self.tree)
        return _best(self.combine(scores), self.encoder.labels)


class HeadDecoder:
    """The classification head's choice."""

    name = "head"

    def __init__(self, network: CachedQwen2VL, encoder: PromptEncoder) -> None:
        if network.head is None:
            raise StageError("This model has no classification head; choose another --decoder")
        self.network = network
        self.encoder = encoder

    @torch.no_grad()
    def __call__(
        self, grids: Sequence[Grid], features: Sequence[torch.Tensor], hints: Sequence[str] = ()
    ) -> list[DecoderOutput]:
        """Return the category of the highest score, with the log-probabilities of all."""
        batch = self.encoder.inference_batch(grids, hints).to(self.network.device)
        return _best(self.network.head_scores(batch, features), self.encoder.labels)


def make_decoder(name: DecoderName, network: CachedQwen2VL, encoder: PromptEncoder) -> Decoder:
    """Return a decoder by its name; raises StageError where the model lacks what it needs."""
    if name == "rank":
        return RankingDecoder(network, encoder)
    if name == "head":
        return HeadDecoder(network, encoder)
    return GreedyDecoder(network, encoder, build_trie(encoder, encoder.labels.names) if name == "constrained" else None)


def _best(scores: torch.Tensor, labels: Labels) -> list[DecoderOutput]:
    """Return answers from (B, 14) scores."""
    rows = torch.log_softmax(scores.double(), dim=-1).cpu()
    return [
        DecoderOutput(
            labels.names[int(row.argmax())],
            0,
            is_finished=True,
            log_probabilities=tuple(round(v, 6) for v in row.tolist()),
        )
        for row in rows
    ]
