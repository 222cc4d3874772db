"""Metrics of structured answers: true and predicted products in, scores per field with intervals out; pure functions.

A field is scored if its truth is known: as a value, or because the product is known to have none (`absent`). A
predicted value without a known truth is counted in `n_unscored`, not as an error. The outcome of a scored field is one
of

    correct       the values agree by the field's comparison
    substituted   the predicted value differs from the true one
    omitted       no value is predicted, but the product has one
    invented      a value is predicted, but the product is known to have none

Precision = correct / (correct + substituted + invented), recall = correct / (correct + substituted + omitted),
invention rate = invented / images of products known to have none. Null for such an image is right and has no outcome.
Intervals resample products (`skincare.evaluation.intervals`).
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

# Minimum similarity of a correct text or list; ANLS has the same threshold.
# Source: A. F. Biten et al., "Scene Text Visual Question Answering", ICCV 2019.
MIN_SIMILARITY: Final = 0.5
# Name of the whole answer among the fields of a comparison; no field of the schema has it.
DOCUMENT: Final = "document"


@dataclass(frozen=True)
class ScoredProduct:
    """The structured answer for one image, with its truth.

    absent: fields that the product is known to lack. confidences: field -> probability of its value.
    """

    image_id: str
    product_id: str
    truth: Product
    predicted: Product | None
    status: JsonStatus
    absent: frozenset[str] = frozenset()
    confidences: Mapping[str, float] = field(default_factory=dict)


Pair = tuple[ScoredProduct, ScoredProduct]


@dataclass(frozen=True)
class FieldScores:
    """Scores of one field; None where the denominator is zero.

    n_known: images with a known value; n_absent: images of products known to have none.
    """

    field: str
    n_known: int
    n_absent: int
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
    invention_rate: float | None
    invention_low: float | None
    invention_high: float | None
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
    """The second system's share of right answers minus the first's, over the images whose truth is known.

    n_known: these images, with those of products known to have no value.
    """

    n_known: int
    difference: float
    low: float
    high: float
    products_p: float


def compare(
    first: Sequence[ScoredProduct], second: Sequence[ScoredProduct], seed: int = 0, n_resamples: int = 2000
) -> dict[str, PairedField]:
    """Return, per field, the difference of two systems' shares of right answers (`is_right`) on the same images.

    Fields whose truth is known for no image are left out. Raises ValueError for other images or other truths.
    """
    pairs = _paired(first, second)
    draw = _draws(pairs, seed, n_resamples)
    found = {}
    for name in FIELDS:
        known = [pair for pair in pairs if is_right(pair[0], name) is not None]
        if known:
            hits = [tuple(float(bool(is_right(answer, name))) for answer in pair) for pair in known]
            found[name] = _paired_difference(draw, known, hits)
    return found


def compare_documents(
    first: Sequence[ScoredProduct], second: Sequence[ScoredProduct], seed: int = 0, n_resamples: int = 2000
) -> PairedField:
    """Return the difference of two systems' mean ANLS* of whole answers on the same images; raises as `compare`."""
    pairs = _paired(first, second)
    scores = [(document_score(one), document_score(other)) for one, other in pairs]
    return _paired_difference(_draws(pairs, seed, n_resamples), pairs, scores)


@dataclass(frozen=True)
class _Draws:
    """Products drawn with replacement. row_of: product id -> column of `counts`, (n_resamples, n_products)."""

    row_of: Mapping[str, int]
    counts: intervals.Floats
    seed: int


def _draws(pairs: Sequence[Pair], seed: int, n_resamples: int) -> _Draws:
    products = sorted({one.product_id for one, _ in pairs})
    rows = {product: row for row, product in enumerate(products)}
    return _Draws(rows, intervals.draw_products(len(products), seed, n_resamples), seed)


def _paired_difference(draws: _Draws, pairs: Sequence[Pair], values: Sequence[Sequence[float]]) -> PairedField:
    """Return the mean difference of the values of pairs."""
    changes, n_known = np.zeros(len(draws.row_of)), np.zeros(len(draws.row_of))
    for (one, _), (before, after) in zip(pairs, values, strict=True):
        changes[draws.row_of[one.product_id]] += after - before
        n_known[draws.row_of[one.product_id]] += 1
    return _paired_field(changes, n_known, draws.counts, draws.seed)


def _paired_field(
    changes: intervals.Floats, n_known: intervals.Floats, draws: intervals.Floats, seed: int
) -> PairedField:
    n_drawn = draws @ n_known
    drawn = np.divide(draws @ changes, n_drawn, out=np.full(len(draws), np.nan), where=n_drawn > 0)
    low, high = intervals.difference_interval(drawn, int(np.count_nonzero(n_known)))
    p_value = intervals.sign_flip_p(changes, seed, len(draws))
    return PairedField(int(n_known.sum()), float(changes.sum() / n_known.sum()), low, high, p_value)


def _paired(first: Sequence[ScoredProduct], second: Sequence[ScoredProduct]) -> list[Pair]:
    one, other = ({answer.image_id: answer for answer in answers} for answers in (first, second))
    truths = [
        {key: (answer.product_id, answer.truth, answer.absent) for key, answer in by_id.items()}
        for by_id in (one, other)
    ]
    if not one or truths[0] != truths[1] or (len(one), len(other)) != (len(first), len(second)):
        raise ValueError("only systems with one answer for each of the same images and the same truths can be compared")
    return [(one[key], other[key]) for key in sorted(one)]


def outcome(one: ScoredProduct, name: str) -> Outcome | None:
    """Return the outcome of a field of an answer; None if its truth is unknown, or null for an absent field."""
    truth, predicted = getattr(one.truth, name), getattr(one.predicted, name) if one.predicted else None
    if truth is None:
        return "invented" if predicted is not None and name in one.absent else None
    if predicted is None:
        return "omitted"
    return "correct" if similarity(name, truth, predicted) >= MIN_SIMILARITY else "substituted"


def is_right(one: ScoredProduct, name: str) -> bool | None:
    """Return whether a field has its true value, or null where the product has none; None if the truth is unknown.

    An answer that could not be parsed is wrong in every field.
    """
    if getattr(one.truth, name) is None and name not in one.absent:
        return None
    return one.predicted is not None and outcome(one, name) in ("correct", None)


def document_score(one: ScoredProduct) -> float:
    """Return the ANLS* of an answer over the fields with a known truth.

    An invented value counts as a key that the truth does not have; null for an absent field counts nothing.
    """
    known = {name: value for name in FIELDS if (value := getattr(one.truth, name)) is not None}
    answered = {name: getattr(one.predicted, name) if one.predicted else None for name in known}
    invented = {name: getattr(one.predicted, name) for name in FIELDS if outcome(one, name) == "invented"}
    return document_similarity(known, answered | invented)


def score(answers: Sequence[ScoredProduct], seed: int = 0, n_resamples: int = 2000) -> ProductScores:
    """Return the scores of answers, one per image; raises ValueError without answers."""
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
    hits, n_predicted, n_true, n_invented = (
        _per_product(rows, np.array([one in counted for one in outcomes]), draws.shape[1])
        for counted in (
            ("correct",), ("correct", "substituted", "invented"), ("correct", "substituted", "omitted"), ("invented",),
        )
    )  # fmt: skip
    # F1 = 2 hits / (predicted + true) is a share too.
    f1_interval = intervals.share_interval(2 * hits, n_predicted + n_true, draws) or (None, None)
    known = [one for one in answers if getattr(one.truth, name) is not None]
    is_absent = np.array([getattr(one.truth, name) is None and name in one.absent for one in answers])
    n_absent = _per_product(rows, is_absent, draws.shape[1])
    invention_interval = intervals.share_interval(n_invented, n_absent, draws) or (None, None)
    similarities = [_similarity_of(one, name) for one in known]
    return FieldScores(
        field=name,
        n_known=len(known),
        n_absent=int(is_absent.sum()),
        n_unscored=sum(
            one is None and answer.predicted is not None and getattr(answer.predicted, name) is not None
            for one, answer in zip(outcomes, answers, strict=True)
        ),
        **{one: counts[one] for one in OUTCOMES},
        precision=_share(hits.sum(), n_predicted.sum()),
        recall=_share(hits.sum(), n_true.sum()),
        f1=_share(2 * hits.sum(), n_predicted.sum() + n_true.sum()),
        f1_low=f1_interval[0],
        f1_high=f1_interval[1],
        invention_rate=_share(n_invented.sum(), n_absent.sum()),
        invention_low=invention_interval[0],
        invention_high=invention_interval[1],
        mean_similarity=float(np.mean(similarities)) if similarities else None,
    )


def _per_product(
    rows: npt.NDArray[np.int_], values: npt.NDArray[np.float64 | np.bool_] | None = None, n_products: int = 0
) -> intervals.Floats:
    """Return (products,) sums of the values of the images; values: ones by default."""
    return np.bincount(rows, values, n_products).astype(np.float64)


def _similarity_of(one: ScoredProduct, name: str) -> float:
    predicted = getattr(one.predicted, name) if one.predicted else None
    return 0.0 if predicted is None else similarity(name, getattr(one.truth, name), predicted)


def _share(part: float, whole: float) -> float | None:
    return float(part / whole) if whole else None
