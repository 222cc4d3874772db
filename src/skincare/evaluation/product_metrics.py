"""Metrics of structured answers: true and predicted products in, scores per field with intervals out; pure functions.

A field is scored where its truth is known; a predicted value whose truth is merely unknown is counted (`n_unscored`),
never as an error. Each scored field of an image ends as one of

    correct       the values agree, as the field's own comparison decides
    substituted   there is a value, and it is another one
    omitted       there is no value, though the truth has one
    invented      there is a value, though it is known that there is none

so that precision = correct / (correct + substituted + invented), recall = correct / (correct + substituted + omitted).
Images of one product are answered alike: intervals draw products, as everywhere (`skincare.evaluation.intervals`).
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Literal

import numpy as np
import numpy.typing as npt

from skincare.evaluation import intervals
from skincare.evaluation.field_similarity import document_similarity, similarity
from skincare.product.json_answers import JsonStatus
from skincare.product.schema import FIELDS, Product

Outcome = Literal["correct", "substituted", "omitted", "invented"]
OUTCOMES: Final[tuple[Outcome, ...]] = ("correct", "substituted", "omitted", "invented")

# A text or a list counts as correct from this similarity on; ANLS has the same threshold.
# Source: A. F. Biten et al., "Scene Text Visual Question Answering", ICCV 2019.
MIN_SIMILARITY: Final = 0.5


@dataclass(frozen=True)
class ScoredProduct:
    """The structured answer for one image, with its truth.

    absent: fields of which it is known that the product has no value. confidences: field -> probability of its value.
    """

    image_id: str
    product_id: str
    truth: Product
    predicted: Product | None
    status: JsonStatus
    absent: frozenset[str] = frozenset()
    confidences: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class FieldScores:
    """Scores of one field over the images whose truth is known; None where nothing can be divided."""

    field: str
    n_known: int
    n_unscored: int
    correct: int
    substituted: int
    omitted: int
    invented: int
    precision: float | None
    recall: float | None
    f1: float | None
    f1_low: float | None
    f1_high: float | None
    mean_similarity: float | None


@dataclass(frozen=True)
class ProductScores:
    """Scores of a set of structured answers; shares are of all images."""

    n: int
    n_products: int
    json_valid: float
    schema_valid: float
    statuses: dict[str, int]
    fields: tuple[FieldScores, ...]
    document: float
    document_low: float
    document_high: float


@dataclass(frozen=True)
class PairedField:
    """The second system's share of correct values minus the first's, over the images whose truth is known."""

    n_known: int
    difference: float
    low: float
    high: float
    products_p: float


def compare(
    first: Sequence[ScoredProduct], second: Sequence[ScoredProduct], seed: int = 0, n_resamples: int = 2000
) -> dict[str, PairedField]:
    """Return, per field, the difference of two systems' shares of correct values on the same images.

    Raises ValueError where the systems answered about other images or were scored against other truths.
    """
    pairs = _paired(first, second)
    products = sorted({one.product_id for one, _ in pairs})
    draws = intervals.draw_products(len(products), seed, n_resamples)
    row_of = {product: row for row, product in enumerate(products)}
    found = {}
    for name in FIELDS:
        changes, n_known = np.zeros(len(products)), np.zeros(len(products))
        for one, other in pairs:
            if getattr(one.truth, name) is not None:
                row = row_of[one.product_id]
                changes[row] += (outcome(other, name) == "correct") - (outcome(one, name) == "correct")
                n_known[row] += 1
        if n_known.any():
            found[name] = _paired_field(changes, n_known, draws, seed)
    return found


def _paired_field(
    changes: intervals.Floats, n_known: intervals.Floats, draws: intervals.Floats, seed: int
) -> PairedField:
    n_drawn = draws @ n_known
    drawn = np.divide(draws @ changes, n_drawn, out=np.full(len(draws), np.nan), where=n_drawn > 0)
    low, high = intervals.difference_interval(drawn, int(np.count_nonzero(n_known)))
    p_value = intervals.sign_flip_p(changes, seed, len(draws))
    return PairedField(int(n_known.sum()), float(changes.sum() / n_known.sum()), low, high, p_value)


def _paired(
    first: Sequence[ScoredProduct], second: Sequence[ScoredProduct]
) -> list[tuple[ScoredProduct, ScoredProduct]]:
    one, other = ({answer.image_id: answer for answer in answers} for answers in (first, second))
    truths = [{key: (answer.product_id, answer.truth) for key, answer in by_id.items()} for by_id in (one, other)]
    if not one or truths[0] != truths[1] or (len(one), len(other)) != (len(first), len(second)):
        raise ValueError("only answers about the same images, each once, with the same truths can be compared")
    return [(one[key], other[key]) for key in sorted(one)]


def outcome(one: ScoredProduct, name: str) -> Outcome | None:
    """Return how a field of an answer ended; None where its truth is not known."""
    truth, predicted = getattr(one.truth, name), getattr(one.predicted, name) if one.predicted else None
    if truth is None:
        return "invented" if predicted is not None and name in one.absent else None
    if predicted is None:
        return "omitted"
    return "correct" if similarity(name, truth, predicted) >= MIN_SIMILARITY else "substituted"


def document_score(one: ScoredProduct) -> float:
    """Return the ANLS* of a whole answer over the fields whose truth is known."""
    known = {name: value for name in FIELDS if (value := getattr(one.truth, name)) is not None}
    answered = {name: getattr(one.predicted, name) if one.predicted else None for name in known}
    return document_similarity(known, answered)


def score(answers: Sequence[ScoredProduct], seed: int = 0, n_resamples: int = 2000) -> ProductScores:
    """Return the scores of answers, one per image; raises ValueError where there are none."""
    if not answers:
        raise ValueError("no structured answers to score")
    ordered = sorted(answers, key=lambda one: one.image_id)
    products = sorted({one.product_id for one in ordered})
    row_of = {product: row for row, product in enumerate(products)}
    rows = np.array([row_of[one.product_id] for one in ordered])
    draws = intervals.draw_products(len(products), seed, n_resamples)
    statuses = Counter(one.status for one in ordered)
    documents = np.array([document_score(one) for one in ordered])
    low, high = intervals.share_interval(_per_product(rows, documents), _per_product(rows), draws) or (0.0, 1.0)
    return ProductScores(
        n=len(ordered),
        n_products=len(products),
        json_valid=(statuses["valid"] + statuses["repaired"]) / len(ordered),
        schema_valid=statuses["valid"] / len(ordered),
        statuses=dict(sorted(statuses.items())),
        fields=tuple(_field_scores(name, ordered, rows, draws) for name in FIELDS),
        document=float(documents.mean()),
        document_low=low,
        document_high=high,
    )


def _field_scores(
    name: str, answers: Sequence[ScoredProduct], rows: npt.NDArray[np.int_], draws: intervals.Floats
) -> FieldScores:
    outcomes = [outcome(one, name) for one in answers]
    counts = Counter(one for one in outcomes if one)
    hits, n_predicted, n_true = (
        _per_product(rows, np.array([one in some for one in outcomes]), draws.shape[1])
        for some in (("correct",), ("correct", "substituted", "invented"), ("correct", "substituted", "omitted"))
    )
    # F1 = 2 hits / (predicted + true) is a share, so that its interval is a share's.
    interval = intervals.share_interval(2 * hits, n_predicted + n_true, draws)
    known = [
        one for one, ended in zip(answers, outcomes, strict=True) if ended and getattr(one.truth, name) is not None
    ]
    similarities = [_similarity_of(one, name) for one in known]
    return FieldScores(
        field=name,
        n_known=len(known),
        n_unscored=sum(
            one is None and answer.predicted is not None and getattr(answer.predicted, name) is not None
            for one, answer in zip(outcomes, answers, strict=True)
        ),
        **{one: counts[one] for one in OUTCOMES},
        precision=_share(hits.sum(), n_predicted.sum()),
        recall=_share(hits.sum(), n_true.sum()),
        f1=_share(2 * hits.sum(), n_predicted.sum() + n_true.sum()),
        f1_low=interval[0] if interval else None,
        f1_high=interval[1] if interval else None,
        mean_similarity=float(np.mean(similarities)) if similarities else None,
    )


def _per_product(
    rows: npt.NDArray[np.int_], values: npt.NDArray[np.float64 | np.bool_] | None = None, n_products: int = 0
) -> intervals.Floats:
    """Return each product's sum of the values of its images; of ones by default."""
    return np.bincount(rows, values, n_products).astype(np.float64)


def _similarity_of(one: ScoredProduct, name: str) -> float:
    predicted = getattr(one.predicted, name) if one.predicted else None
    return 0.0 if predicted is None else similarity(name, getattr(one.truth, name), predicted)


def _share(part: float, whole: float) -> float | None:
    return float(part / whole) if whole else None
