"""The contents of `confidence.json`: temperature and thresholds chosen on val, with their effect on test."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from skincare.evaluation import hierarchy, intervals
from skincare.evaluation.calibration import (
    ChosenThreshold,
    LogProbabilities,
    Mask,
    apply_temperature,
    as_arrays,
    aurc,
    brier_score,
    expected_calibration_error,
    fit_temperature,
    optimal_aurc,
    reliability,
    risk_coverage,
    threshold_for_risk,
    top1,
)
from skincare.inference.predictions import Prediction
from skincare.labels import Labels


def summarise(
    val: Sequence[Prediction], test: Sequence[Prediction], wanted_risks: Sequence[float], labels: Labels
) -> dict[str, Any]:
    """Return the calibration and abstention metrics of test; temperature and thresholds are chosen on val.

    ece, brier: after temperature scaling, *_before without it. aurc: area under `risk_coverage`; it lies between
    aurc_optimal (every correct prediction has a higher confidence than every wrong one) and aurc_random (confidence
    carries no information). wanted: for each wanted risk the threshold, its coverage, risk and bound on val (null where
    no threshold qualifies), coverage and risk on test, and the 95 % interval of that risk over products.
    hierarchy: see `skincare.evaluation.hierarchy`.
    """
    (val_table, val_truths), (table, truths) = as_arrays(val, labels), as_arrays(test, labels)
    # In the order of `as_arrays`.
    product_ids = [one.product_id for one in sorted(test, key=lambda one: one.image_id)]
    temperature = fit_temperature(val_table, val_truths)
    val_table, scaled = apply_temperature(val_table, temperature), apply_temperature(table, temperature)
    points = risk_coverage(scaled, truths)
    chosen = top1(val_table, val_truths)
    right = top1(scaled, truths)[1]
    return {
        "n_val": len(val_truths),
        "n_test": len(truths),
        "accuracy": float(right.mean()),
        "temperature": temperature,
        "ece_before": expected_calibration_error(reliability(table, truths)),
        "ece": expected_calibration_error(reliability(scaled, truths)),
        "brier_before": brier_score(table, truths),
        "brier": brier_score(scaled, truths),
        "aurc": aurc(points),
        "aurc_optimal": optimal_aurc(int(right.sum()), len(truths)),
        "aurc_random": 1 - float(right.mean()),
        "reliability": [asdict(one) for one in reliability(scaled, truths)],
        "risk_coverage": [asdict(one) for one in points],
        "wanted": [
            _judged(risk, threshold_for_risk(*chosen, risk), *top1(scaled, truths), product_ids)
            for risk in wanted_risks
        ],
        "hierarchy": hierarchy.summarise((val_table, val_truths), (scaled, truths), wanted_risks, labels, product_ids),
    }


def _judged(
    wanted_risk: float, chosen: ChosenThreshold | None, confidence: LogProbabilities, right: Mask,
    product_ids: Sequence[str],
) -> dict[str, Any]:  # fmt: skip
    """Return coverage and risk of a threshold on val and on test."""
    answered = confidence >= chosen.threshold if chosen else np.zeros(len(right), dtype=bool)
    wrong, answered_ids = ~right[answered], np.asarray(product_ids)[answered].tolist()
    return {
        "wanted_risk": wanted_risk,
        "threshold": chosen.threshold if chosen else None,
        "val_coverage": chosen.coverage if chosen else 0.0,
        "val_risk": chosen.risk if chosen else None,
        "val_bound": chosen.bound if chosen else None,
        "test_coverage": float(answered.mean()),
        "test_risk": float(wrong.mean()) if len(wrong) else None,
        "test_risk_interval": intervals.image_share_interval(wrong, answered_ids),
    }
