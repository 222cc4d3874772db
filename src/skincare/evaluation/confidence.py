"""What `confidence.json` holds: how sure the model is of its answers, and what that is worth on test."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from skincare.evaluation import hierarchy, intervals
from skincare.evaluation.calibration import (
    ChosenThreshold,
    Rights,
    Table,
    area_under_risk_coverage,
    brier_score,
    confidence_of,
    expected_calibration_error,
    fit_temperature,
    least_area,
    reliability,
    risk_coverage,
    table_of,
    threshold_for_risk,
    with_temperature,
)
from skincare.inference.predictions import Prediction
from skincare.labels import Labels


def summarise(
    val: Sequence[Prediction], test: Sequence[Prediction], wanted_risks: Sequence[float], labels: Labels
) -> dict[str, Any]:
    """Return what a reader should know about the confidence on test; temperature and thresholds are chosen on val.

    ece, brier: with the fitted temperature, *_before without; aurc: area under `risk_coverage`, to be read between
    aurc_least (right answers are always the surest) and aurc_random (confidence says nothing); wanted: per wanted risk
    the threshold, its coverage, risk and bound on val (null where val vouches for none), what test then shows, and the
    95 % interval of that risk as if images were independent; hierarchy: see `skincare.evaluation.hierarchy`.
    """
    (val_table, val_truths), (table, truths) = table_of(val, labels), table_of(test, labels)
    temperature = fit_temperature(val_table, val_truths)
    val_table, scaled = with_temperature(val_table, temperature), with_temperature(table, temperature)
    points = risk_coverage(scaled, truths)
    chosen = confidence_of(val_table, val_truths)
    right = confidence_of(scaled, truths)[1]
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
        "aurc_least": least_area(int(right.sum()), len(truths)),
        "aurc_random": 1 - float(right.mean()),
        "reliability": [asdict(one) for one in reliability(scaled, truths)],
        "risk_coverage": [asdict(one) for one in points],
        "wanted": [
            _judged(risk, threshold_for_risk(*chosen, risk), *confidence_of(scaled, truths)) for risk in wanted_risks
        ],
        "hierarchy": hierarchy.summarise((val_table, val_truths), (scaled, truths), wanted_risks, labels),
    }


def _judged(wanted_risk: float, chosen: ChosenThreshold | None, confidence: Table, right: Rights) -> dict[str, Any]:
    """Return what val promised and what test shows."""
    answered = confidence >= chosen.threshold if chosen else np.zeros(len(right), dtype=bool)
    n, n_wrong = int(answered.sum()), int((~right[answered]).sum())
    return {
        "wanted_risk": wanted_risk,
        "threshold": chosen.threshold if chosen else None,
        "val_coverage": chosen.coverage if chosen else 0.0,
        "val_risk": chosen.risk if chosen else None,
        "val_bound": chosen.bound if chosen else None,
        "test_coverage": float(answered.mean()),
        "test_risk": n_wrong / n if n else None,
        "test_risk_interval": intervals.wilson_interval(n_wrong, n) if n else None,
    }
