"""Calibrated confidences of the fields of structured answers, and thresholds below which a field is left null; pure.

The confidence of a value, 0 to 1, becomes a probability by Platt scaling, fitted on val:

    p(correct) = sigmoid(slope x logit(confidence) + offset)

Source: J. Platt, "Probabilistic outputs for support vector machines", 1999. A Gaussian prior around the unchanged
confidence (slope 1, offset 0) keeps a field of few values close to it.
"""

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from scipy import optimize, special

from skincare.evaluation import field_policy, intervals
from skincare.evaluation.calibration import (
    ERROR_RATES,
    Mask,
    expected_calibration_error,
    reliability_of,
    threshold_for_risk,
)
from skincare.evaluation.field_policy import NO_CONFIDENCE, Calibrator
from skincare.evaluation.product_metrics import Outcome, ScoredProduct, outcome
from skincare.product.schema import FIELDS

Confidences = npt.NDArray[np.float64]

# Inverse variance of the prior of slope and offset: a standard normal one.
_PRIOR: Final = 1.0
_LEAST: Final = 1e-6
# Outcomes of a predicted value whose correctness is known.
_PREDICTED: Final[tuple[Outcome, ...]] = ("correct", "substituted", "invented")


def fit(confidences: Confidences, right: Mask) -> Calibrator:
    """Return the calibrator of the least negative log-likelihood with its prior; the prior's without values."""
    if not len(confidences):
        return Calibrator()
    logits = _logit(confidences)

    def loss(values: npt.NDArray[np.float64]) -> tuple[float, npt.NDArray[np.float64]]:
        scores = values[0] * logits + values[1]
        pull = values - np.array([1.0, 0.0])
        total = float(np.logaddexp(0.0, scores).sum() - scores[right].sum() + _PRIOR * pull @ pull / 2)
        errors = special.expit(scores) - right
        return total, np.array([errors @ logits, errors.sum()]) + _PRIOR * pull

    # A slope below 0 would rank confident values last.
    found = optimize.minimize(loss, np.array([1.0, 0.0]), jac=True, method="L-BFGS-B", bounds=[(0.0, 20.0), (-20, 20)])
    return Calibrator(float(found.x[0]), float(found.x[1]))


def values_of(name: str, answers: Sequence[ScoredProduct]) -> tuple[Confidences, Mask]:
    """Return the (n,) confidences of the predicted values whose correctness is known, and whether they are correct."""
    pairs = [
        (one.confidences.get(name, NO_CONFIDENCE), found == "correct")
        for one in answers
        if (found := outcome(one, name)) in _PREDICTED
    ]
    return np.array([one for one, _ in pairs], np.float64), np.array([one for _, one in pairs], np.bool_)


def thresholds(val: tuple[Confidences, Mask]) -> list[dict[str, Any]]:
    """Return, per accepted error rate, the threshold chosen on val (None if none qualifies) and its effect there.

    Coverage is the share of the predicted values that are kept; see `calibration.threshold_for_risk` for the bound.
    """
    chosen = {rate: threshold_for_risk(*val, rate) for rate in ERROR_RATES}
    return [
        {
            "wanted_risk": rate,
            "threshold": one.threshold if one else None,
            "val_coverage": one.coverage if one else 0.0,
            "val_risk": one.risk if one else None,
            "val_bound": one.bound if one else None,
        }
        for rate, one in chosen.items()
    ]


def _on_test(
    threshold: float | None, confidences: Confidences, right: Mask, product_ids: Sequence[str]
) -> dict[str, Any]:  # fmt: skip
    """Return coverage and risk of a threshold on test, with the 95 % interval of the risk over products."""
    kept = np.zeros(len(right), np.bool_) if threshold is None else confidences >= threshold
    if not kept.any():
        return {"test_coverage": 0.0, "test_risk": None, "test_risk_interval": None}
    return {
        "test_coverage": float(kept.mean()),
        "test_risk": float((~right[kept]).mean()),
        "test_risk_interval": intervals.image_share_interval(~right[kept], np.asarray(product_ids)[kept].tolist()),
    }


def summarise(val: Sequence[ScoredProduct], test: Sequence[ScoredProduct]) -> dict[str, Any]:
    """Return the contents of field_confidence.json: calibrators and thresholds of the fields, chosen on val.

    ece_before, ece: expected calibration error on test without and with the calibrator; None without values.
    """
    fields = {name: _summarise_field(name, val, test) for name in FIELDS}
    return {"version": field_policy.VERSION, "n_val": len(val), "n_test": len(test), "fields": fields}


def _summarise_field(
    name: str, val_answers: Sequence[ScoredProduct], test_answers: Sequence[ScoredProduct]
) -> dict[str, Any]:  # fmt: skip
    val, test = values_of(name, val_answers), values_of(name, test_answers)
    calibrator = fit(*val)
    scaled = [(np.array([calibrator(one) for one in part[0]], np.float64), part[1]) for part in (val, test)]
    product_ids = [one.product_id for one in test_answers if outcome(one, name) in _PREDICTED]
    return {
        "slope": calibrator.slope,
        "offset": calibrator.offset,
        "n_val": len(val[1]),
        "n_test": len(test[1]),
        "ece_before": _calibration_error(*test),
        "ece": _calibration_error(*scaled[1]),
        "wanted": [{**one, **_on_test(one["threshold"], *scaled[1], product_ids)} for one in thresholds(scaled[0])],
    }


def _calibration_error(confidences: Confidences, right: Mask) -> float | None:
    return expected_calibration_error(reliability_of(confidences, right)) if len(right) else None


def best_f1_threshold(confidences: Confidences, right: Mask, n_true: int) -> float | None:
    """Return the lowest threshold with the highest F1, `n_true` the number of known values; None without a correct one.

    F1 = 2 correct / (kept + known). As for an accepted error rate, ten coverages are tried (10 %, 20 % ...), since the
    best of all values of a small val would be found by chance.
    """
    if not right.any():
        return None
    ordered = np.sort(confidences)[::-1]
    levels = np.unique([ordered[max(0, round(len(ordered) * tenths / 10) - 1)] for tenths in range(1, 11)])
    kept = [confidences >= level for level in levels]
    f1 = [2 * int(right[one].sum()) / (int(one.sum()) + n_true) for one in kept]
    return float(levels[int(np.argmax(f1))])


def _logit(confidences: Confidences) -> Confidences:
    found: Confidences = special.logit(np.clip(confidences, _LEAST, 1 - _LEAST))
    return found
