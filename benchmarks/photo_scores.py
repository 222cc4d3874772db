"""Scores of labelled photos: predictions in; accuracy, macro F1, risk and coverage out, with intervals by product."""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from skincare.evaluation import calibration, intervals, metrics
from skincare.labels import skincare_labels

_N_RESAMPLES: Final = 5000
_MOST_CONFIDENT_SHARE: Final = 0.6


@dataclass(frozen=True)
class Answer:
    """Prediction of a reader for one photo. `category` is the most likely one, by the prior if there is no text."""

    image_id: str
    product_id: str
    truth: str
    category: str
    has_text: bool
    is_answered: bool
    confidence: float

    @property
    def is_right(self) -> bool:
        """Whether the most likely category is the true one."""
        return self.category == self.truth


def score(answers: Sequence[Answer]) -> dict[str, Any]:
    """Return all scores of a reader, intervals by product."""
    products = {product_id: i for i, product_id in enumerate(sorted({one.product_id for one in answers}))}
    draws = intervals.draw_products(len(products), 0, _N_RESAMPLES)

    def share(part: Sequence[Answer], is_hit: Callable[[Answer], bool]) -> dict[str, Any]:
        hits, among = np.zeros(len(products)), np.zeros(len(products))
        for one in part:
            among[products[one.product_id]] += 1
            hits[products[one.product_id]] += is_hit(one)
        return {"value": share_of(int(hits.sum()), len(part)), "interval": intervals.share_interval(hits, among, draws)}

    ordered = sorted(answers, key=lambda one: (-one.confidence, one.image_id))
    answered = [one for one in answers if one.is_answered]
    counts = metrics.confusion_by_product(answers, skincare_labels().names)
    f1 = float(metrics.macro_f1(counts.sum(axis=0)))
    drawn_f1 = metrics.macro_f1(np.tensordot(draws, counts, axes=1))
    return {
        "accuracy": share(answers, lambda one: one.is_right),
        "accuracy_no_text_is_wrong": share(answers, lambda one: one.is_right and one.has_text),
        "macro_f1": {"value": f1, "interval": intervals.interval_of_draws(f1, drawn_f1, len(products))},
        "answered": share(answers, lambda one: one.is_answered),
        "accuracy_of_answered": share(answered, lambda one: one.is_right),
        "accuracy_of_most_confident_60": share(
            ordered[: round(_MOST_CONFIDENT_SHARE * len(ordered))], lambda one: one.is_right
        ),
        "expected_calibration_error": _calibration_error(answers),
        "risk_coverage": [_risk_point(ordered, tenth) for tenth in range(1, 11)],
    }


def counts_by(keys: Sequence[str], answers: Sequence[Answer]) -> dict[str, dict[str, Any]]:
    """Return counts and accuracy of the predictions of each key."""
    groups: dict[str, list[Answer]] = defaultdict(list)
    for key, answer in zip(keys, answers, strict=True):
        groups[key].append(answer)
    return {
        key: {
            "n": len(group),
            "n_products": len({one.product_id for one in group}),
            "accuracy": share_of(sum(one.is_right for one in group), len(group)),
            "n_answered": sum(one.is_answered for one in group),
            "n_answered_right": sum(one.is_answered and one.is_right for one in group),
        }
        for key, group in sorted(groups.items())
    }


def _calibration_error(answers: Sequence[Answer]) -> float:
    """Return the expected calibration error over ten bins of equally many answers."""
    bins = np.array_split(np.argsort([one.confidence for one in answers], kind="stable"), 10)
    mean = [
        calibration.ReliabilityBin(
            len(part),
            float(np.mean([answers[i].confidence for i in part])),
            float(np.mean([answers[i].is_right for i in part])),
        )
        for part in bins
        if len(part)
    ]
    return round(calibration.expected_calibration_error(mean), 4)


def _risk_point(ordered: Sequence[Answer], tenth: int) -> dict[str, Any]:
    covered = ordered[: max(1, round(len(ordered) * tenth / 10))]
    return {
        "coverage": tenth / 10,
        "accuracy": share_of(sum(one.is_right for one in covered), len(covered)),
        "threshold": round(covered[-1].confidence, 4),
    }


def share_of(hits: int, n: int) -> float | None:
    """Return the share of hits; None if `n` is 0."""
    return round(hits / n, 4) if n else None


def readme_table(result: Mapping[str, Any]) -> str:
    """Return the README table of the benchmark's results."""
    names = {"table": "Phrase table only, as after the clone", "table and names": "Also fitted on a catalogue's names"}
    readers = {names[name]: scores for name, scores in result["readers"].items()}
    rows = {
        "Accuracy of the most likely category, all photos": "accuracy",
        "The same, photos without text counted as wrong": "accuracy_no_text_is_wrong",
        "Macro F1": "macro_f1",
        "Accuracy of the 60 % with the highest confidence": "accuracy_of_most_confident_60",
        "Coverage (the others are labelled Unknown)": "answered",
        "Accuracy of those covered": "accuracy_of_answered",
    }
    n = result["photos"]
    lines = [
        f"| {n['n']} real photos of {n['n_products']} products | {' | '.join(readers)} |",
        "|" + "---|" * (1 + len(readers)),
    ]
    for label, key in rows.items():
        cells = [_cell(scores[key]) for scores in readers.values()]
        lines.append(f"| {label} | {' | '.join(cells)} |")
    always = " | ".join([f"{result['most_frequent_category']:.1%}"] * len(readers))
    return "\n".join([*lines, f"| Baseline: always the most frequent category | {always} |"])


def _cell(share: Mapping[str, Any]) -> str:
    low, high = share["interval"]
    return f"{share['value']:.1%} ({low:.1%} to {high:.1%})"
