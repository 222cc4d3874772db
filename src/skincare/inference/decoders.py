"""Decoders: four methods to predict a label, with one interface.

generate     free greedy text, which the parser maps to a label: the method of the reference experiment
constrained  greedy text that is limited to the labels
rank         the exact likelihood of every label, from one pass over the prompt and one over the token trie
head         the classification head of a model that was trained with one

A model of structured answers has the first two: free JSON, or JSON that is limited to the schema.
"""

from collections.abc import Callable, Sequence
from typing import Final, Protocol, get_args

import torch

from skincare.errors import StageError
from skincare.inference import structured_decoder
from skincare.inference.decoder_output import DecoderOutput
from skincare.inference.structured_decoder import StructuredDecoder, product_constraint
from skincare.labels import Labels
from skincare.modeling.cached_vlm import CachedVLM
from skincare.modeling.prompt_encoder import Grid, PromptEncoder
from skincare.modeling.settings import DecoderName
from skincare.modeling.token_trie import TokenTrie, build_trie
from skincare.prompts import target_of

NAMES: Final[tuple[DecoderName, ...]] = get_args(DecoderName)
MAX_NEW_TOKENS: Final = 30

# Increase it with every change of a decoder's outputs: cached predictions of other versions are not used.
VERSION: Final = 2


class Decoder(Protocol):
    """A decoding method."""

    name: str

    def __call__(
        self, grids: Sequence[Grid], features: Sequence[torch.Tensor], hints: Sequence[str] = ()
    ) -> list[DecoderOutput]:
        """Return an output for each image, given by its grid, its vision features and its hint."""


class GreedyDecoder:
    """Greedy decoding: free, or limited to the labels of a trie."""

    def __init__(self, network: CachedVLM, encoder: PromptEncoder, trie: TokenTrie | None = None) -> None:
        self.name = "generate" if trie is None else "constrained"
        self.network = network
        self.encoder = encoder
        self.next_tokens = trie.next_tokens if trie else None

    def __call__(
        self, grids: Sequence[Grid], features: Sequence[torch.Tensor], hints: Sequence[str] = ()
    ) -> list[DecoderOutput]:
        """Return the text up to the end token, at most 30 tokens."""
        batch = self.encoder.inference_batch(grids, hints).to(self.network.device)
        generated = self.network.generate(self.encoder, batch, features, MAX_NEW_TOKENS, self.next_tokens)
        return [DecoderOutput(self.encoder.decode(one.tokens), len(one.tokens), one.is_finished) for one in generated]


class RankingDecoder:
    """The most likely label, each scored as a whole with its end token.

    The trie may hold other phrases: `combine` maps its scores to (B, n_labels) scores.
    """

    def __init__(
        self, network: CachedVLM, encoder: PromptEncoder, name: str = "rank", trie: TokenTrie | None = None,
        combine: Callable[[torch.Tensor], torch.Tensor] = lambda scores: scores,
    ) -> None:  # fmt: skip
        self.name = name
        self.network = network
        self.encoder = encoder
        self.trie = trie or build_trie(encoder, encoder.labels.names)
        self.combine = combine

    def __call__(
        self, grids: Sequence[Grid], features: Sequence[torch.Tensor], hints: Sequence[str] = ()
    ) -> list[DecoderOutput]:
        """Return the label with the highest score, with the log-probabilities of all, normalised over the labels."""
        batch = self.encoder.inference_batch(grids, hints).to(self.network.device)
        scores = self.network.score_labels(batch, features, self.trie)
        return _best(self.combine(scores), self.encoder.labels)


class HeadDecoder:
    """The label with the highest score of the classification head."""

    name = "head"

    def __init__(self, network: CachedVLM, encoder: PromptEncoder) -> None:
        if network.head is None:
            raise StageError("This model has no classification head; choose another --decoder")
        self.network = network
        self.encoder = encoder

    @torch.no_grad()
    def __call__(
        self, grids: Sequence[Grid], features: Sequence[torch.Tensor], hints: Sequence[str] = ()
    ) -> list[DecoderOutput]:
        """Return the label with the highest score, with the log-probabilities of all."""
        batch = self.encoder.inference_batch(grids, hints).to(self.network.device)
        return _best(self.network.head_scores(batch, features), self.encoder.labels)


def max_new_tokens(labels: Labels) -> int:
    """Return the limit of an answer's tokens: that of a label, or of a structured answer."""
    return structured_decoder.MAX_ANSWER_TOKENS if target_of(labels) == "product" else MAX_NEW_TOKENS


def make_decoder(name: DecoderName, network: CachedVLM, encoder: PromptEncoder) -> Decoder:
    """Return a decoder by its name; raises StageError for one that the model or its answers do not have."""
    if target_of(encoder.labels) == "product":
        if name in ("rank", "head"):
            raise StageError(f"Structured answers have no decoder {name}: use --decoder generate or constrained")
        return StructuredDecoder(
            network, encoder, product_constraint(network, encoder) if name == "constrained" else None
        )  # fmt: skip
    if name == "rank":
        return RankingDecoder(network, encoder)
    if name == "head":
        return HeadDecoder(network, encoder)
    return GreedyDecoder(network, encoder, build_trie(encoder, encoder.labels.names) if name == "constrained" else None)


def _best(scores: torch.Tensor, labels: Labels) -> list[DecoderOutput]:
    """Return outputs from (B, n_labels) scores."""
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
