"""What a value's confidence means: calibrators and thresholds per field, kept in a run's field_confidence.json; pure.

No scipy: the reader's start does not wait for it. `field_calibrators` fits what is applied here.
"""

import json
import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from skincare.errors import StageError
from skincare.product.schema import FIELDS, Product

logger = logging.getLogger(__name__)

FILE: Final = "field_confidence.json"
VERSION: Final = 1
# Of a value whose system gives no confidence.
NO_CONFIDENCE: Final = 0.5
_LEAST: Final = 1e-6


@dataclass(frozen=True)
class Calibrator:
    """Platt scaling of the confidences of one field: p(correct) = sigmoid(slope x logit(confidence) + offset)."""

    slope: float = 1.0
    offset: float = 0.0

    def __call__(self, confidence: float) -> float:
        """Return the probability that a value of this confidence is correct."""
        inside = min(max(confidence, _LEAST), 1 - _LEAST)
        score = self.slope * math.log(inside / (1 - inside)) + self.offset
        return 1 / (1 + math.exp(-score)) if score >= 0 else math.exp(score) / (1 + math.exp(score))


@dataclass(frozen=True)
class FieldPolicy:
    """How the values of a structured answer are kept.

    calibrators: of the fields that have one. thresholds: field -> least confidence of a value that is kept.
    """

    calibrators: Mapping[str, Calibrator] = field(default_factory=dict)
    thresholds: Mapping[str, float] = field(default_factory=dict)

    def calibrated(self, product: Product | None, confidences: Mapping[str, float]) -> dict[str, float]:
        """Return field -> probability that its value is correct, for the values that have a confidence."""
        values = product.model_dump() if product else {}
        return {
            name: self.calibrators[name](confidences[name]) if name in self.calibrators else confidences[name]
            for name in FIELDS
            if values.get(name) is not None and name in confidences
        }

    def kept(self, product: Product, calibrated: Mapping[str, float]) -> Product:
        """Return the product with null for the fields below their thresholds; a value without confidence has 0.5."""
        left_out = {
            name: None
            for name, threshold in self.thresholds.items()
            if getattr(product, name) is not None and calibrated.get(name, NO_CONFIDENCE) < threshold
        }
        return product.model_copy(update=left_out) if left_out else product


def policy(
    fields: Mapping[str, Mapping[str, Any]], min_confidence: float | None, max_error: float | None, default_error: float
) -> FieldPolicy:  # fmt: skip
    """Return the policy of fields that have `slope`, `offset` and `wanted` thresholds.

    min_confidence: one threshold for all fields. max_error: accepted error rate; a field without a threshold for it is
    always null. Without both: the threshold of `default_error` or the next larger rate that has one, else none.
    Raises StageError for a `max_error` that no field has a row of.
    """
    check_error_rate([one["wanted"] for one in fields.values()], max_error)
    calibrators = {name: Calibrator(float(one["slope"]), float(one["offset"])) for name, one in fields.items()}
    if min_confidence is not None:
        return FieldPolicy(calibrators, dict.fromkeys(FIELDS, min_confidence))
    chosen = {name: threshold_for(one["wanted"], max_error, default_error) for name, one in fields.items()}
    return FieldPolicy(calibrators, {name: one for name, one in chosen.items() if one is not None})


def check_error_rate(fields: Sequence[Sequence[Mapping[str, Any]]], max_error: float | None) -> None:
    """Raise StageError for an error rate that thresholds were not chosen for; `fields`: the `wanted` of each field."""
    rates = sorted({float(one["wanted_risk"]) for wanted in fields for one in wanted})
    if max_error is not None and max_error not in rates:
        known = ", ".join(f"{rate:g}" for rate in rates) or "none"
        raise StageError(f"no threshold was chosen for --max-error {max_error:g}; there are thresholds for {known}")


def threshold_for(wanted: Sequence[Mapping[str, Any]], max_error: float | None, default_error: float) -> float | None:
    """Return the threshold of a field for an accepted error rate: infinite if that rate has none.

    Without `max_error` that of `default_error` or of the next larger rate with a threshold; None if there is none.
    """
    known = {float(one["wanted_risk"]): float(one["threshold"]) for one in wanted if one["threshold"] is not None}
    if max_error is not None:
        return known.get(max_error, math.inf)
    return known.get(min((rate for rate in known if rate >= default_error), default=math.nan))


def read(path: Path, min_confidence: float | None, max_error: float | None, default_error: float) -> FieldPolicy:
    """Return the policy of a run's file; raises StageError if it is damaged, or has no row for `max_error`."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        if found["version"] != VERSION:
            raise ValueError("another version")
        return policy({name: found["fields"][name] for name in FIELDS}, min_confidence, max_error, default_error)
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise StageError(
            f"{path}: not the field confidence of a run ({error!r}); run `python src/finetune.py`"
        ) from error
