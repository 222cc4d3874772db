"""Calibration of structured answers, field by field: scored answers with confidences in, reliability out; pure.

It compares the confidence of each predicted value with whether the value is correct. Values whose correctness is not
known, and values without a confidence, do not count.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from skincare.evaluation.calibration import ReliabilityBin, expected_calibration_error, reliability_of
from skincare.evaluation.product_metrics import ScoredProduct, outcome
from skincare.product.schema import FIELDS

# With fewer values the error of a bin's accuracy is larger than what is measured.
MIN_VALUES: Final = 30
_N_BINS: Final = 5


@dataclass(frozen=True)
class FieldCalibration:
    """Calibration of one field; ece and bins are None where there are fewer than `MIN_VALUES` values."""

    field: str
    n: int
    mean_confidence: float | None
    accuracy: float | None
    ece: float | None
    bins: list[ReliabilityBin] | None


def calibrate(answers: Sequence[ScoredProduct]) -> list[FieldCalibration]:
    """Return the calibration of each field, in order of the schema; `confidences` of the answers are probabilities."""
    return [_calibrate_field(name, answers) for name in FIELDS]


def confidences(log_probabilities: Mapping[str, float]) -> dict[str, float]:
    """Return field -> probability from mean log-probabilities."""
    return {name: math.exp(value) for name, value in log_probabilities.items()}


def _calibrate_field(name: str, answers: Sequence[ScoredProduct]) -> FieldCalibration:
    pairs = [
        (one.confidences[name], found == "correct")
        for one in answers
        if name in one.confidences and (found := outcome(one, name)) in ("correct", "substituted", "invented")
    ]
    if not pairs:
        return FieldCalibration(name, 0, None, None, None, None)
    confidence, right = np.array([one for one, _ in pairs]), np.array([one for _, one in pairs], dtype=np.bool_)
    bins = reliability_of(confidence, right, _N_BINS) if len(pairs) >= MIN_VALUES else None
    return FieldCalibration(
        name, len(pairs), float(confidence.mean()), float(right.mean()),
        expected_calibration_error(bins) if bins else None, bins,
    )  # fmt: skip
