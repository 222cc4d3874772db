"""Four ways to get an answer from the model, behind one call.

generate     free greedy text, read by the parser: the reference's way
constrained  greedy text in which only the 14 names may be said
rank         the exact likelihood of all 14 names, from one pass over the prompt and one over the tree of names
head         a classification head, where the model was trained with one
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, Literal, Protocol, get_args

import torch

from skincare.errors import StageError
from skincare.labels import Labels
from skincare.modeling.batches import Grid, PromptEncoder
from skincare.modeling.recogniser import Recogniser
from skincare.modeling.token_trie import AnswerTree, build_tree

DecoderName = Literal["generate", "constrained", "rank", "head"]
NAMES: Final[tuple[DecoderName, ...]] = get_args(DecoderName)
MAX_NEW_TOKENS: Final = 30

# Raise it with every change after which a decoder may answer otherwise: answers kept from before are then not used.
VERSION: Final = 1


@dataclass(frozen=True)
class Answer:
    """What the model said; log_probabilities are those of the 14 categories, empty where the way gives none."""

    text: str
    n_new_tokens: int
    is_finished: bool
    log_probabilities: tuple[float, ...] = ()


class Decoder(Protocol):
    """One way to get answers; its name says which."""

    name: str

    def __call__(
        self, grids: Sequence[Grid], states: Sequence[torch.Tensor], hints: Sequence[str] = ()
    ) -> list[Answer]:
        """Return an answer for each image, given by its grid and prefix states, and by its hint where there are."""


class Greedy:
    """Greedy text: free, or, with a tree of names, nothing but one of them."""

    def __init__(self, recogniser: Recogniser, encoder: PromptEncoder, tree: AnswerTree | None = None) -> None:
        self.name = "generate" if tree is None else "constrained"
        self.recogniser = recogniser
        self.encoder = encoder
        self.next_tokens = tree.next_tokens if tree else None

    def __call__(
        self, grids: Sequence[Grid], states: Sequence[torch.Tensor], hints: Sequence[str] = ()
    ) -> list[Answer]:
        """Return the text up to the end token, or its first 30 tokens."""
        batch = self.encoder.questions(grids, hints).to(self.recogniser.device)
        generated = self.recogniser.generate(self.encoder, batch, states, MAX_NEW_TOKENS, self.next_tokens)
        return [Answer(self.encoder.decode(one.tokens), len(one.tokens), one.is_finished) for one in generated]


class Rank:
    """The likeliest of the 14 names, each scored as a whole with its end token.

    Others than the names may be scored: `combine` makes (B, 14) scores of categories of those of the tree's answers.
    """

    def __init__(
        self, recogniser: Recogniser, encoder: PromptEncoder, name: str = "rank", tree: AnswerTree | None = None,
        combine: Callable[[torch.Tensor], torch.Tensor] = lambda scores: scores,
    ) -> None:  # fmt: skip
        self.name = name
        self.recogniser = recogniser
        self.encoder = encoder
        self.tree = tree or build_tree(encoder, encoder.labels.names)
        self.combine = combine

    def __call__(
        self, grids: Sequence[Grid], states: Sequence[torch.Tensor], hints: Sequence[str] = ()
    ) -> list[Answer]:
        """Return the best name, with the log-probabilities of all names given that one of them is said."""
        batch = self.encoder.questions(grids, hints).to(self.recogniser.device)
        scores = self.recogniser.score_tree(batch, states, self.tree)
        return _best(self.combine(scores), self.encoder.labels)


class Head:
    """The classification head's choice."""

    name = "head"

    def __init__(self, recogniser: Recogniser, encoder: PromptEncoder) -> None:
        if recogniser.head is None:
            raise StageError("This model has no classification head; choose another --decoder")
        self.recogniser = recogniser
        self.encoder = encoder

    @torch.no_grad()
    def __call__(
        self, grids: Sequence[Grid], states: Sequence[torch.Tensor], hints: Sequence[str] = ()
    ) -> list[Answer]:
        """Return the category of the highest score, with the log-probabilities of all."""
        batch = self.encoder.questions(grids, hints).to(self.recogniser.device)
        return _best(self.recogniser.head_scores(batch, states), self.encoder.labels)


def make_decoder(name: DecoderName, recogniser: Recogniser, encoder: PromptEncoder) -> Decoder:
    """Return a decoder by its name; raises StageError where the model lacks what it needs."""
    if name == "rank":
        return Rank(recogniser, encoder)
    if name == "head":
        return Head(recogniser, encoder)
    return Greedy(recogniser, encoder, build_tree(encoder, encoder.labels.names) if name == "constrained" else None)


def _best(scores: torch.Tensor, labels: Labels) -> list[Answer]:
    """Return answers from (B, 14) scores."""
    rows = torch.log_softmax(scores.double(), dim=-1).cpu()
    return [
        Answer(
            labels.names[int(row.argmax())],
            0,
            is_finished=True,
            log_probabilities=tuple(round(v, 6) for v in row.tolist()),
        )
        for row in rows
    ]
