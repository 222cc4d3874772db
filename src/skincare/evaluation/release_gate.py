"""The release gate: a paired comparison of a new model with a baseline on the same images.

    python src/report.py --write-gate-baseline baseline.json      once, after the run that is the baseline
    python src/report.py --gate baseline.json                     after every later run on the same test images

A baseline is one JSON object: `kind`, `version`, the source (`model`, `run`, `git_commit`), and `answers`, a list of
{"image_id", "product_id", "truth", "category"}; category is null for a prediction without one.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Final, Literal

from skincare.errors import MissingInputError, StageError
from skincare.evaluation.comparison import compare
from skincare.evaluation.metrics import LabelledPrediction
from skincare.files import write_json
from skincare.labels import Labels

_KIND: Final = "skincare gate baseline"
VERSION: Final = 1
# 100,000 predictions take 12 MB.
_MAX_BYTES: Final = 64_000_000
REMEDY: Final = "Write it with `python src/report.py --write-gate-baseline FILE` after a finished run."


class GateBaselineError(StageError):
    """The baseline file is damaged or of other images."""

    exit_code = 2


@dataclass(frozen=True)
class GatePrediction:
    """A prediction as a baseline stores it."""

    image_id: str
    product_id: str
    truth: str
    category: str | None


@dataclass(frozen=True)
class Baseline:
    """The predictions that a candidate is compared with, and their source."""

    source: Mapping[str, str]
    predictions: tuple[GatePrediction, ...]


@dataclass(frozen=True)
class Verdict:
    """The result of a gate; difference is the candidate's accuracy minus the baseline's.

    verdict: failed if the 95 % interval of the difference is below `margin`, passed if it is not below `margin` at any
    point, else inconclusive. Only `failed` fails the gate.
    """

    verdict: Literal["passed", "inconclusive", "failed"]
    margin: float
    n: int
    n_products: int
    accuracy_baseline: float
    accuracy_candidate: float
    difference: float
    difference_low: float
    difference_high: float
    baseline: Mapping[str, str]

    def __str__(self) -> str:
        return (
            f"gate {self.verdict}: {self.accuracy_candidate:.1%} against {self.accuracy_baseline:.1%} of the baseline, "
            f"difference {100 * self.difference:+.1f} points ({100 * self.difference_low:+.1f} to "
            f"{100 * self.difference_high:+.1f}), margin {100 * self.margin:+.1f}, n = {self.n} images of "
            f"{self.n_products} products; baseline: {dict(self.baseline)}"
        )


def judge(baseline: Baseline, candidate: Sequence[LabelledPrediction], margin: float) -> Verdict:
    """Compare a candidate with the baseline; raises GateBaselineError if the images differ."""
    check_margin(margin)
    try:
        found = compare(baseline.predictions, candidate)
    except StageError as error:
        raise GateBaselineError(_difference(baseline.predictions, candidate)) from error
    low, high = found.difference_low, found.difference_high
    return Verdict(
        verdict="failed" if high < margin else "passed" if low >= margin else "inconclusive",
        margin=margin,
        n=found.n,
        n_products=found.n_products,
        accuracy_baseline=found.accuracy_before,
        accuracy_candidate=found.accuracy_after,
        difference=found.difference,
        difference_low=low,
        difference_high=high,
        baseline=baseline.source,
    )


def check_margin(margin: float) -> None:
    """Raise StageError for a margin that is no difference of shares."""
    if not (math.isfinite(margin) and -1 <= margin <= 1):
        raise StageError(f"--gate-margin is a difference of shares, -1 to 1 (0.02 is two points), not {margin}")


def write_baseline(path: Path, predictions: Sequence[LabelledPrediction], source: Mapping[str, str]) -> None:
    """Write predictions, sorted by image id, as a baseline."""
    rows = [asdict(GatePrediction(one.image_id, one.product_id, one.truth, one.category)) for one in predictions]
    rows.sort(key=lambda row: row["image_id"])
    write_json(path, {"kind": _KIND, "version": VERSION, **source, "answers": rows})


def read_baseline(path: Path, labels: Labels) -> Baseline:
    """Read what `write_baseline` wrote; raises MissingInputError or GateBaselineError."""
    source, answers = read_answers(path, _KIND)
    try:
        return Baseline(source, tuple(_answer(i, one, labels) for i, one in enumerate(answers, start=1)))
    except ValueError as error:
        raise GateBaselineError(f"{path} is no gate baseline: {error}\n{REMEDY}") from error


def read_answers(path: Path, kind: str) -> tuple[dict[str, str], list[Any]]:
    """Return the source and the answers of a baseline of a kind, whose image ids differ.

    Raises MissingInputError or GateBaselineError.
    """
    if not path.is_file():
        raise MissingInputError("gate baseline", path, REMEDY)
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise ValueError(f"larger than {_MAX_BYTES // 10**6} MB")
        return _parse(json.loads(path.read_text(encoding="utf-8")), kind)
    except (OSError, ValueError, RecursionError) as error:
        raise GateBaselineError(f"{path} is no gate baseline: {error}\n{REMEDY}") from error


def _parse(value: Any, kind: str) -> tuple[dict[str, str], list[Any]]:
    if not isinstance(value, dict) or value.get("kind") != kind or value.get("version") != VERSION:
        raise ValueError(f"not an object with kind {kind!r} and version {VERSION}")
    answers = value.pop("answers", None)
    if not isinstance(answers, list) or not answers:
        raise ValueError("no list of answers")
    ids = [str(one.get("image_id")) for one in answers if isinstance(one, dict)]
    if len(set(ids)) < len(ids):
        raise ValueError("an image is answered twice")
    # One line of it is shown; a file from elsewhere may hold anything.
    names = ("model", "run", "system", "git_commit")
    return {key: ascii(value[key])[1:-1][:100] for key in names if key in value}, answers


def _answer(number: int, value: Any, labels: Labels) -> GatePrediction:
    names = [field.name for field in fields(GatePrediction)]
    if not isinstance(value, dict) or sorted(value) != sorted(names):
        raise ValueError(f"answer {number} is not an object with {', '.join(names)}")
    if not isinstance(value["image_id"], str) or not isinstance(value["product_id"], str):
        raise ValueError(f"answer {number}: ids must be text")
    if value["truth"] not in labels.names or value["category"] not in (None, *labels.names):
        raise ValueError(f"answer {number}: {value['truth']!r} or {value['category']!r} is no category")
    return GatePrediction(**value)


def _difference(baseline: Sequence[GatePrediction], candidate: Sequence[LabelledPrediction]) -> str:
    """Describe how the images of baseline and candidate differ."""
    first, second = ({one.image_id: (one.truth, one.product_id) for one in part} for part in (baseline, candidate))
    alone, new = sorted(first.keys() - second.keys()), sorted(second.keys() - first.keys())
    other = sorted(i for i in first.keys() & second.keys() if first[i] != second[i])
    parts = [
        f"{len(ids)} {what}, such as {ids[0]!r}"
        for ids, what in ((alone, "only in the baseline"), (new, "only in this run"),
                          (other, "with another truth or product"))
        if ids
    ]  # fmt: skip
    return f"The gate's baseline is of other images: {'; '.join(parts)}. One test set for both!\n{REMEDY}"
