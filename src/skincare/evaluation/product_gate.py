"""The release gate of structured answers: paired comparisons of a new model with a baseline on the same images.

The criteria are the mean ANLS* of whole answers, the share of answers that are JSON, and the F1 of each field with a
known truth. Their intervals jointly cover 95 % (Bonferroni), so that more fields do not fail an equal model more often.
`skincare.evaluation.release_gate` has the commands; a baseline of products is a file of the same form, whose `answers`
are {"image_id", "product_id", "status", "product", "truth"}, with "absent", the fields that the product is known to
lack, where there are any; product is null where the text held none.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal, get_args

import numpy as np
from pydantic import ValidationError

from skincare.evaluation import intervals, release_gate
from skincare.evaluation.product_metrics import ScoredProduct, document_score, outcome
from skincare.evaluation.release_gate import GateBaselineError
from skincare.files import write_json
from skincare.product.json_answers import JsonStatus
from skincare.product.schema import FIELDS, Product

KIND: Final = "skincare gate baseline of structured answers"
_KEYS: Final = ("image_id", "product_id", "status", "product", "truth")
_N_RESAMPLES: Final = 10_000

Word = Literal["passed", "inconclusive", "failed"]


@dataclass(frozen=True)
class ProductBaseline:
    """The structured answers that a candidate is compared with, and their source."""

    source: Mapping[str, str]
    answers: tuple[ScoredProduct, ...]


@dataclass(frozen=True)
class Criterion:
    """One metric of both; difference is the candidate's minus the baseline's, with its joint interval.

    verdict: as in `release_gate.Verdict`.
    """

    name: str
    n: int
    baseline: float
    candidate: float
    difference: float
    difference_low: float
    difference_high: float
    verdict: Word


@dataclass(frozen=True)
class ProductVerdict:
    """The result of a gate: failed if a criterion failed, passed if all passed, else inconclusive."""

    verdict: Word
    margin: float
    n: int
    n_products: int
    criteria: tuple[Criterion, ...]
    baseline: Mapping[str, str]

    def __str__(self) -> str:
        rows = "".join(
            f"\n  {one.verdict:12}  {one.name:22}  {one.candidate:.3f} against {one.baseline:.3f}, difference "
            f"{one.difference:+.3f} ({one.difference_low:+.3f} to {one.difference_high:+.3f}), n = {one.n}"
            for one in self.criteria
        )
        return (
            f"gate {self.verdict}: structured answers for {self.n} images of {self.n_products} products, margin "
            f"{self.margin:+.3f}; baseline: {dict(self.baseline)}{rows}"
        )


def judge(baseline: ProductBaseline, candidate: Sequence[ScoredProduct], margin: float) -> ProductVerdict:
    """Compare a candidate with the baseline; raises GateBaselineError if images or truths differ."""
    release_gate.check_margin(margin)
    pairs = _paired(baseline.answers, candidate)
    products = sorted({one.product_id for one, _ in pairs})
    rows = np.array([products.index(one.product_id) for one, _ in pairs])
    draws = intervals.draw_products(len(products), 0, _N_RESAMPLES)
    known = [name for name in FIELDS if any(getattr(one.truth, name) is not None for one, _ in pairs)]
    counters: dict[str, Counter] = {
        "document ANLS*": lambda one: (document_score(one), 1.0),
        "valid JSON": lambda one: (float(one.status in ("valid", "repaired")), 1.0),
        **{f"F1 of {name}": _f1_parts(name) for name in known},
    }
    level = 1 - 0.05 / len(counters)
    criteria = tuple(_criterion(name, parts, pairs, rows, draws, margin, level) for name, parts in counters.items())
    words = {one.verdict for one in criteria}
    verdict: Word = "failed" if "failed" in words else "passed" if words == {"passed"} else "inconclusive"
    return ProductVerdict(verdict, margin, len(pairs), len(products), criteria, baseline.source)


# An answer's parts of a ratio of sums: (numerator, denominator).
Counter = Callable[[ScoredProduct], tuple[float, float]]


def _f1_parts(name: str) -> Counter:
    """Return the parts of F1 = 2 correct / (predicted + known)."""
    weights = {"correct": (2.0, 2.0), "substituted": (0.0, 2.0), "omitted": (0.0, 1.0), "invented": (0.0, 1.0)}

    def parts(one: ScoredProduct) -> tuple[float, float]:
        found = outcome(one, name)
        return weights[found] if found else (0.0, 0.0)

    return parts


def _criterion(
    name: str, parts: Counter, pairs: Sequence[tuple[ScoredProduct, ScoredProduct]], rows: Any,
    draws: intervals.Floats, margin: float, level: float,
) -> Criterion:  # fmt: skip
    values, drawn = [], []
    for side in (0, 1):
        found = np.array([parts(pair[side]) for pair in pairs])
        sums = np.stack([np.bincount(rows, column, draws.shape[1]) for column in found.T])
        values.append(float(sums[0].sum() / sums[1].sum()))
        below = draws @ sums[1]
        drawn.append(np.divide(draws @ sums[0], below, out=np.full(len(draws), np.nan), where=below > 0))
    n_products = len({one.product_id for one, _ in pairs if parts(one)[1]})
    low, high = intervals.percentile_interval(drawn[1] - drawn[0], n_products, level) if n_products > 1 else (-1.0, 1.0)
    word: Word = "failed" if high < margin else "passed" if low >= margin else "inconclusive"
    n = sum(parts(one)[1] > 0 for one, _ in pairs)
    return Criterion(name, n, values[0], values[1], values[1] - values[0], low, high, word)


def _paired(
    first: Sequence[ScoredProduct], second: Sequence[ScoredProduct]
) -> list[tuple[ScoredProduct, ScoredProduct]]:
    one, other = ({answer.image_id: answer for answer in part} for part in (first, second))
    same = {
        key for key in one.keys() & other.keys()
        if (one[key].truth, one[key].absent) == (other[key].truth, other[key].absent)
    }  # fmt: skip
    if not one or not same == one.keys() == other.keys():
        n = len((one.keys() | other.keys()) - same)
        raise GateBaselineError(
            f"The gate's baseline is of other images or other truths: {n} of {len(one.keys() | other.keys())} differ. "
            f"One test set for both!\n{release_gate.REMEDY}"
        )
    return [(one[key], other[key]) for key in sorted(one)]


def scored(rows: Sequence[Mapping[str, Any]]) -> list[ScoredProduct]:
    """Return the answers of log/products/<system>.jsonl."""
    return [_scored({"product_id": str(one["image_id"]).rpartition("_")[0], **one}) for one in rows]


def write_baseline(path: Path, answers: Sequence[ScoredProduct], source: Mapping[str, str]) -> None:
    """Write structured answers, sorted by image id, as a baseline."""
    rows = [
        {
            "image_id": one.image_id, "product_id": one.product_id, "status": one.status,
            "product": one.predicted.model_dump(mode="json", exclude_none=True) if one.predicted else None,
            "truth": one.truth.model_dump(mode="json", exclude_none=True),
            **({"absent": sorted(one.absent)} if one.absent else {}),
        }
        for one in sorted(answers, key=lambda one: one.image_id)
    ]  # fmt: skip
    write_json(path, {"kind": KIND, "version": release_gate.VERSION, **source, "answers": rows})


def read_baseline(path: Path) -> ProductBaseline:
    """Read what `write_baseline` wrote; raises MissingInputError or GateBaselineError."""
    source, rows = release_gate.read_answers(path, KIND)
    try:
        for number, one in enumerate(rows, start=1):
            if not isinstance(one, dict) or set(one) - {"absent"} != set(_KEYS):
                raise ValueError(f"answer {number} is not an object with {', '.join(_KEYS)}")
        return ProductBaseline(source, tuple(_scored(one) for one in rows))
    except (ValueError, ValidationError, TypeError) as error:
        raise GateBaselineError(f"{path} is no gate baseline: {error}\n{release_gate.REMEDY}") from error


def _scored(one: Mapping[str, Any]) -> ScoredProduct:
    if one["status"] not in get_args(JsonStatus):
        raise ValueError(f"the status {one['status']!r} is unknown")
    if not isinstance(one["image_id"], str) or not isinstance(one["product_id"], str):
        raise ValueError("ids must be text")
    truth, predicted = (
        None if value is None else Product.model_validate(value) for value in (one["truth"], one["product"])
    )
    if truth is None:
        raise ValueError(f"{one['image_id']} has no truth")
    absent = one.get("absent", [])
    if not isinstance(absent, list) or any(name not in FIELDS or getattr(truth, name) is not None for name in absent):
        raise ValueError(f"{one['image_id']} has no list of absent fields")
    return ScoredProduct(one["image_id"], one["product_id"], truth, predicted, one["status"], frozenset(absent))
