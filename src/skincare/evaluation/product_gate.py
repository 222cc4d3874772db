"""The release gate of structured answers: paired comparisons of a new model with a baseline on the same images.

The criteria are the mean ANLS* of whole answers, the share of answers that are JSON, and the F1 of each field with a
known truth. Their intervals jointly cover 95 % (Bonferroni), so that more fields do not fail an equal model more often.
The commands are those of `skincare.evaluation.release_gate`. A baseline has the same form, with other `answers`:
{"image_id", "product_id", "status", "product", "truth"}, and "absent", the fields that the product is known to lack,
where there are any; product is null for a text without one.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal, get_args

import numpy as np
import numpy.typing as npt
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

Verdict = Literal["passed", "inconclusive", "failed"]


@dataclass(frozen=True)
class ProductBaseline:
    """The structured answers that a candidate is compared with, and their source."""

    source: Mapping[str, str]
    answers: tuple[ScoredProduct, ...]


@dataclass(frozen=True)
class Criterion:
    """One metric of both systems over `n` images; difference: the candidate's minus the baseline's.

    difference_low, difference_high: the joint interval. verdict: as in `release_gate.Verdict`.
    """

    name: str
    n: int
    baseline: float
    candidate: float
    difference: float
    difference_low: float
    difference_high: float
    verdict: Verdict


@dataclass(frozen=True)
class ProductVerdict:
    """The result of a gate: failed if a criterion failed, passed if all passed, else inconclusive."""

    verdict: Verdict
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
    column_of = {product: i for i, product in enumerate(sorted({one.product_id for one, _ in pairs}))}
    columns = np.array([column_of[one.product_id] for one, _ in pairs])
    draws = intervals.draw_products(len(column_of), 0, _N_RESAMPLES)
    known = [name for name in FIELDS if any(getattr(one.truth, name) is not None for one, _ in pairs)]
    parts_of: dict[str, Parts] = {
        "document ANLS*": lambda one: (document_score(one), 1.0),
        "valid JSON": lambda one: (float(one.status in ("valid", "repaired")), 1.0),
        **{f"F1 of {name}": _f1_parts(name) for name in known},
    }
    comparison = _Comparison(pairs, columns, draws, margin, level=1 - 0.05 / len(parts_of))
    criteria = tuple(_criterion(name, parts, comparison) for name, parts in parts_of.items())
    verdicts = {one.verdict for one in criteria}
    verdict: Verdict = "failed" if "failed" in verdicts else "passed" if verdicts == {"passed"} else "inconclusive"
    return ProductVerdict(verdict, margin, len(pairs), len(column_of), criteria, baseline.source)


# Numerator and denominator that an answer adds to a ratio of sums.
Parts = Callable[[ScoredProduct], tuple[float, float]]


@dataclass(frozen=True)
class _Comparison:
    """Pairs of answers (baseline, candidate), and products drawn with replacement.

    columns: (pairs,) column of each pair's product in `draws`, (n_resamples, n_products).
    """

    pairs: Sequence[tuple[ScoredProduct, ScoredProduct]]
    columns: npt.NDArray[np.int_]
    draws: intervals.Floats
    margin: float
    level: float


def _f1_parts(name: str) -> Parts:
    """Return the parts of F1 = 2 correct / (predicted + known)."""
    weights = {"correct": (2.0, 2.0), "substituted": (0.0, 2.0), "omitted": (0.0, 1.0), "invented": (0.0, 1.0)}

    def parts(one: ScoredProduct) -> tuple[float, float]:
        found = outcome(one, name)
        return weights[found] if found else (0.0, 0.0)

    return parts


def _criterion(name: str, parts: Parts, comparison: _Comparison) -> Criterion:
    """Return the difference of a ratio of sums over both systems' answers, with its interval over products."""
    of_baseline, of_candidate = (
        np.array([parts(pair[side]) for pair in comparison.pairs]) for side in (0, 1)
    )  # fmt: skip
    first, first_drawn = _ratio(of_baseline, comparison)
    second, second_drawn = _ratio(of_candidate, comparison)
    counts = of_baseline[:, 1] + of_candidate[:, 1] > 0
    n_products = len(set(comparison.columns[counts].tolist()))
    low, high = -1.0, 1.0
    if n_products > 1:
        low, high = intervals.percentile_interval(second_drawn - first_drawn, n_products, comparison.level)
    margin = comparison.margin
    verdict: Verdict = "failed" if high < margin else "passed" if low >= margin else "inconclusive"
    return Criterion(name, int(counts.sum()), first, second, second - first, low, high, verdict)


def _ratio(parts: intervals.Floats, comparison: _Comparison) -> tuple[float, intervals.Floats]:
    """Return a ratio of sums and its value in each resample, NaN where its denominator is zero; parts: (pairs, 2)."""
    draws = comparison.draws
    above, below = (np.bincount(comparison.columns, column, draws.shape[1]) for column in parts.T)
    n_drawn = draws @ below
    drawn = np.divide(draws @ above, n_drawn, out=np.full(len(draws), np.nan), where=n_drawn > 0)
    return float(above.sum() / below.sum()), drawn


def _paired(
    first: Sequence[ScoredProduct], second: Sequence[ScoredProduct]
) -> list[tuple[ScoredProduct, ScoredProduct]]:
    """Return both answers about each image, by image id; raises GateBaselineError if images or truths differ."""
    one, other = ({answer.image_id: answer for answer in part} for part in (first, second))
    image_ids = one.keys() | other.keys()
    same = {
        key for key in one.keys() & other.keys()
        if (one[key].truth, one[key].absent) == (other[key].truth, other[key].absent)
    }  # fmt: skip
    differing = image_ids - same
    if differing or not image_ids:
        raise GateBaselineError(
            f"The gate's baseline is of other images or other truths: {len(differing)} of {len(image_ids)} differ. "
            f"One test set for both!\n{release_gate.REMEDY}"
        )
    return [(one[key], other[key]) for key in sorted(image_ids)]


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
