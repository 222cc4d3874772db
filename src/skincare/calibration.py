"""Whether probabilities mean what they say, and what it costs to answer only when sure; pure functions.

Input throughout: (n, 14) log-probabilities and the places of the true categories. Only val may choose a temperature or
a threshold; test is then read with them.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import optimize, stats

from skincare.categories import CATEGORIES
from skincare.errors import StageError
from skincare.predictions import Prediction

Table = npt.NDArray[np.float64]
Places = npt.NDArray[np.int64]


@dataclass(frozen=True)
class ReliabilityBin:
    """Answers of about one confidence: their number, mean confidence and accuracy."""

    n: int
    confidence: float
    accuracy: float


@dataclass(frozen=True)
class RiskPoint:
    """Answering only where the confidence reaches `threshold`: the share answered and the share of those wrong."""

    threshold: float
    coverage: float
    risk: float


def with_temperature(log_probabilities: Table, temperature: float) -> Table:
    """Return log-probabilities sharpened (below 1) or softened (above 1)."""
    scaled = log_probabilities / temperature
    return scaled - np.logaddexp.reduce(scaled, axis=1, keepdims=True)


def fit_temperature(log_probabilities: Table, truths: Places) -> float:
    """Return the temperature, 0.05 to 20, under which the truths are likeliest; 40 pictures are enough.

    Source: Guo et al. 2017, "On calibration of modern neural networks".
    """

    def loss(log_temperature: float) -> float:
        scaled = with_temperature(log_probabilities, float(np.exp(log_temperature)))
        return -float(scaled[np.arange(len(truths)), truths].mean())

    found = optimize.minimize_scalar(loss, bounds=(np.log(0.05), np.log(20.0)), method="bounded")
    return float(np.exp(found.x))


def reliability(log_probabilities: Table, truths: Places, n_bins: int = 10) -> list[ReliabilityBin]:
    """Return bins of equally many answers, by rising confidence; fewer than `n_bins` for fewer answers."""
    confidence, right = _confidence(log_probabilities, truths)
    order = np.argsort(confidence, kind="stable")
    return [
        ReliabilityBin(len(part), float(confidence[part].mean()), float(right[part].mean()))
        for part in np.array_split(order, min(n_bins, len(order)))
    ]


def expected_calibration_error(bins: list[ReliabilityBin]) -> float:
    """Return the mean distance between confidence and accuracy over bins, by their size."""
    n = sum(one.n for one in bins)
    return sum(one.n * abs(one.confidence - one.accuracy) for one in bins) / n


def brier_score(log_probabilities: Table, truths: Places) -> float:
    """Return the mean squared distance between probabilities and the truth, 0 (right and sure) to 2."""
    probabilities = np.exp(log_probabilities)
    probabilities[np.arange(len(truths)), truths] -= 1
    return float((probabilities**2).sum(axis=1).mean())


def risk_coverage(log_probabilities: Table, truths: Places) -> list[RiskPoint]:
    """Return a point per distinct confidence, from answering only where it is surest to answering always."""
    confidence, right = _confidence(log_probabilities, truths)
    points = []
    for threshold in sorted(set(confidence.tolist()), reverse=True):
        answered = confidence >= threshold
        points.append(RiskPoint(threshold, float(answered.mean()), 1 - float(right[answered].mean())))
    return points


def area_under_risk_coverage(points: list[RiskPoint]) -> float:
    """Return the mean risk over coverages (AURC): a step at each point's own coverage."""
    area, before = 0.0, 0.0
    for point in points:
        area += (point.coverage - before) * point.risk
        before = point.coverage
    return area


def threshold_for_risk(
    log_probabilities: Table, truths: Places, wanted_risk: float, confidence_level: float = 0.95
) -> RiskPoint | None:
    """Return the point of largest coverage whose risk is surely at most `wanted_risk`; None where there is none.

    Surely: the one-sided upper Clopper-Pearson bound of the risk, at ten coverages fixed beforehand (10 %, 20 % ...)
    and with a tenth of the error for each, so that the promise holds for the one that is taken.
    """
    confidence, right = _confidence(log_probabilities, truths)
    ordered = np.sort(confidence)[::-1]
    level = 1 - (1 - confidence_level) / 10
    for tenths in range(10, 0, -1):
        threshold = float(ordered[max(0, round(len(ordered) * tenths / 10) - 1)])
        answered = confidence >= threshold
        n, n_wrong = int(answered.sum()), int((~right[answered]).sum())
        bound = 1.0 if n_wrong == n else float(stats.beta.ppf(level, n_wrong + 1, n - n_wrong))
        if bound <= wanted_risk:
            return RiskPoint(threshold, n / len(truths), n_wrong / n)
    return None


def _confidence(log_probabilities: Table, truths: Places) -> tuple[Table, npt.NDArray[np.bool_]]:
    """Return each answer's probability and whether it is right."""
    return np.exp(log_probabilities.max(axis=1)), log_probabilities.argmax(axis=1) == truths


def table_of(predictions: Sequence[Prediction]) -> tuple[Table, Places]:
    """Return (n, 14) log-probabilities and (n,) places of the truths; StageError where an answer has none."""
    if not predictions or any(len(one.log_probabilities) != len(CATEGORIES) for one in predictions):
        raise StageError("These answers carry no probabilities; ask with --decoder rank or head")
    table = np.array([one.log_probabilities for one in predictions], dtype=np.float64)
    return table, np.array([CATEGORIES.index(one.truth) for one in predictions])


def summarise(val: Sequence[Prediction], test: Sequence[Prediction], wanted_risks: Sequence[float]) -> dict[str, Any]:
    """Return what a reader should know about the confidence on test; temperature and thresholds are chosen on val."""
    (val_table, val_truths), (table, truths) = table_of(val), table_of(test)
    temperature = fit_temperature(val_table, val_truths)
    val_table, scaled = with_temperature(val_table, temperature), with_temperature(table, temperature)
    points = risk_coverage(scaled, truths)
    confidence, right = _confidence(scaled, truths)
    wanted = []
    for risk in wanted_risks:
        chosen = threshold_for_risk(val_table, val_truths, risk)
        answered = confidence >= chosen.threshold if chosen else np.zeros(len(truths), dtype=bool)
        wanted.append(
            {
                "wanted_risk": risk,
                "threshold": chosen.threshold if chosen else None,
                "val_coverage": chosen.coverage if chosen else 0.0,
                "test_coverage": float(answered.mean()),
                "test_risk": 1 - float(right[answered].mean()) if answered.any() else None,
            }
        )
    return {
        "n_val": len(val_truths),
        "n_test": len(truths),
        "accuracy": float(right.mean()),
        "temperature": temperature,
        "ece_before": expected_calibration_error(reliability(table, truths)),
        "ece": expected_calibration_error(reliability(scaled, truths)),
        "brier_before": brier_score(table, truths),
        "brier": brier_score(scaled, truths),
        "aurc": area_under_risk_coverage(points),
        "reliability": [asdict(one) for one in reliability(scaled, truths)],
        "risk_coverage": [asdict(one) for one in points],
        "wanted": wanted,
    }
