"""Calibration of probabilities, and risk and coverage of abstention; pure functions.

Inputs are (n, k) log-probabilities of k labels and the (n,) indices of the true labels. Temperature and thresholds are
chosen on val and applied to test.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
from scipy import optimize, stats

from skincare.errors import StageError
from skincare.inference.predictions import Prediction
from skincare.labels import Labels

LogProbabilities = npt.NDArray[np.float64]
ClassIndices = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]

# Accepted error rates that thresholds are chosen for.
ERROR_RATES: Final = (0.05, 0.1, 0.2, 0.3)


@dataclass(frozen=True)
class ReliabilityBin:
    """Predictions of similar confidence: their number, mean confidence and accuracy."""

    n: int
    confidence: float
    accuracy: float


@dataclass(frozen=True)
class RiskPoint:
    """Coverage and risk (share of wrong predictions) if confidences below `threshold` abstain."""

    threshold: float
    coverage: float
    risk: float


@dataclass(frozen=True)
class ChosenThreshold(RiskPoint):
    """A point chosen for a target risk; bound: the upper confidence bound of its risk."""

    bound: float


def apply_temperature(log_probabilities: LogProbabilities, temperature: float) -> LogProbabilities:
    """Return normalised log-probabilities divided by the temperature: below 1 sharper, above 1 flatter."""
    scaled = log_probabilities / temperature
    return scaled - np.logaddexp.reduce(scaled, axis=1, keepdims=True)


def fit_temperature(log_probabilities: LogProbabilities, truths: ClassIndices) -> float:
    """Return the temperature, 0.05 to 20, of the least negative log-likelihood.

    Source: Guo et al. 2017, "On calibration of modern neural networks".
    """

    def loss(log_temperature: float) -> float:
        scaled = apply_temperature(log_probabilities, float(np.exp(log_temperature)))
        return -float(scaled[np.arange(len(truths)), truths].mean())

    found = optimize.minimize_scalar(loss, bounds=(np.log(0.05), np.log(20.0)), method="bounded")
    return float(np.exp(found.x))


def reliability(log_probabilities: LogProbabilities, truths: ClassIndices, n_bins: int = 10) -> list[ReliabilityBin]:
    """Return the bins of `reliability_of` for the most likely class."""
    return reliability_of(*top1(log_probabilities, truths), n_bins)


def reliability_of(confidence: npt.NDArray[np.float64], right: Mask, n_bins: int = 10) -> list[ReliabilityBin]:
    """Return bins of equal size by rising confidence; fewer than `n_bins` for fewer predictions.

    Predictions of equal confidence share their mean accuracy, so that the order of the input has no effect.
    """
    _, place, n_equal = np.unique(confidence, return_inverse=True, return_counts=True)
    shared = (np.bincount(place, weights=right) / n_equal)[place]
    order = np.argsort(confidence, kind="stable")
    return [
        ReliabilityBin(len(part), float(confidence[part].mean()), float(shared[part].mean()))
        for part in np.array_split(order, min(n_bins, len(order)))
    ]


def expected_calibration_error(bins: list[ReliabilityBin]) -> float:
    """Return the mean absolute difference of confidence and accuracy over bins, weighted by size."""
    n = sum(one.n for one in bins)
    return sum(one.n * abs(one.confidence - one.accuracy) for one in bins) / n


def brier_score(log_probabilities: LogProbabilities, truths: ClassIndices) -> float:
    """Return the mean squared distance of probabilities from the one-hot truth, 0 to 2."""
    probabilities = np.exp(log_probabilities)
    probabilities[np.arange(len(truths)), truths] -= 1
    return float((probabilities**2).sum(axis=1).mean())


def risk_coverage(log_probabilities: LogProbabilities, truths: ClassIndices) -> list[RiskPoint]:
    """Return a point per distinct confidence, from the highest threshold to full coverage."""
    confidence, right = top1(log_probabilities, truths)
    thresholds, n_equal = np.unique(-confidence, return_counts=True)
    n_answered = np.cumsum(n_equal)
    n_wrong = np.cumsum(~right[np.argsort(-confidence, kind="stable")])[n_answered - 1]
    return [
        RiskPoint(-float(threshold), int(n) / len(truths), int(wrong) / int(n))
        for threshold, n, wrong in zip(thresholds, n_answered, n_wrong, strict=True)
    ]


def aurc(points: list[RiskPoint]) -> float:
    """Return the area under the risk-coverage curve, a right Riemann sum.

    Without equal confidences it is the mean over k of the risk of the k most confident predictions.
    Source: Geifman and El-Yaniv 2017, "Selective classification for deep neural networks".
    """
    area, before = 0.0, 0.0
    for point in points:
        area += (point.coverage - before) * point.risk
        before = point.coverage
    return area


def optimal_aurc(n_right: int, n: int) -> float:
    """Return the least possible AURC: all correct predictions have a higher confidence than all wrong ones."""
    return sum(max(0, k - n_right) / k for k in range(1, n + 1)) / n


def threshold_for_risk(
    confidence: LogProbabilities, right: Mask, wanted_risk: float, confidence_level: float = 0.95
) -> ChosenThreshold | None:
    """Return the point of largest coverage whose risk is bounded by `wanted_risk`; None if there is none.

    The bound is the one-sided upper Clopper-Pearson bound of the risk at ten fixed coverages (10 %, 20 % ...), each
    with a tenth of the error probability, so that it holds for the selected one.
    """
    if not len(confidence):
        return None
    ordered = np.sort(confidence)[::-1]
    level = 1 - (1 - confidence_level) / 10
    for tenths in range(10, 0, -1):
        threshold = float(ordered[max(0, round(len(ordered) * tenths / 10) - 1)])
        answered = confidence >= threshold
        n, n_wrong = int(answered.sum()), int((~right[answered]).sum())
        bound = clopper_pearson_upper(n_wrong, n, level)
        if bound <= wanted_risk:
            return ChosenThreshold(threshold, n / len(right), n_wrong / n, bound)
    return None


def clopper_pearson_upper(n_wrong: int, n: int, level: float) -> float:
    """Return the one-sided upper Clopper-Pearson bound of a share."""
    return 1.0 if n_wrong == n else float(stats.beta.ppf(level, n_wrong + 1, n - n_wrong))


def top1(log_probabilities: LogProbabilities, truths: ClassIndices) -> tuple[LogProbabilities, Mask]:
    """Return the (n,) probabilities of the most likely labels and whether these are correct."""
    return np.exp(log_probabilities.max(axis=1)), log_probabilities.argmax(axis=1) == truths


def as_arrays(predictions: Sequence[Prediction], labels: Labels) -> tuple[LogProbabilities, ClassIndices]:
    """Return (n, k) normalised log-probabilities and (n,) true indices; StageError for predictions without them."""
    if not predictions or any(len(one.log_probabilities) != len(labels) for one in predictions):
        raise StageError("These predictions have no probabilities; predict with --decoder rank or head")
    # The order of summation changes the last digit.
    predictions = sorted(predictions, key=lambda one: one.image_id)
    table = np.array([one.log_probabilities for one in predictions], dtype=np.float64)
    if not np.isfinite(table).all():
        raise StageError("These predictions have probabilities that are not finite; predict again")
    return apply_temperature(table, 1.0), np.array([labels.index(one.truth) for one in predictions])
