"""The section on structured answers: what score_products.py and finetune.py wrote, as rows of the report."""

from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

from skincare.evaluation.product_metrics import DOCUMENT
from skincare.reporting.report_data import ReportData

_LABELS: Final = {
    "reader": "Rules on the text of the pack",
    "majority": "Most frequent values of train",
    "zero_shot": "The model before training",
    "finetuned": "The model after training",
    "fused": "Model and rules fused",
    "model": "Answers of --answers",
}
_N_EXAMPLES: Final = 6
_MAX_CHARACTERS: Final = 160
# Paired differences are shown of this many systems, the last ones, with all earlier ones.
_N_COMPARED: Final = 2
# Accepted error rate of the thresholds shown: that of predict.py by default.
_ERROR_RATE: Final = 0.1


class FieldRow(NamedTuple):
    """The scores of one system on one field; None where a denominator is zero.

    n_absent: images of products known to have no value, of which the invention rate is a share.
    """

    field: str
    system: str
    n_known: int
    precision: float | None
    recall: float | None
    f1: float | None
    f1_low: float | None
    f1_high: float | None
    omitted: int
    substituted: int
    invented: int
    n_unscored: int
    n_absent: int = 0
    invention_rate: float | None = None
    invention_low: float | None = None
    invention_high: float | None = None


class DifferenceRow(NamedTuple):
    """The paired difference of two systems' shares of right answers of a field, or of their ANLS* of whole answers."""

    field: str
    systems: str
    n_known: int
    difference: float
    low: float
    high: float
    products_p: float


class CoverageRow(NamedTuple):
    """What is known of a field: images of the split with and known without a value, and products by source."""

    field: str
    n_known: int
    n_absent: int
    n: int
    sources: str
    absent_sources: str


class CalibrationRow(NamedTuple):
    """The confidence of one system's values of a field; ece is None for too few values."""

    field: str
    system: str
    n: int
    mean_confidence: float
    accuracy: float
    ece: float | None


class ThresholdRow(NamedTuple):
    """The model's calibrated confidence of a field, and the threshold chosen on val; None if none qualifies."""

    field: str
    n_val: int
    ece_before: float | None
    ece: float | None
    threshold: float | None
    coverage: float
    risk: float | None


class Value(NamedTuple):
    """The true and the predicted value of a field, as text; empty: none."""

    field: str
    truth: str
    predicted: str


class Example(NamedTuple):
    """One image with its true and predicted values."""

    image_id: str
    thumbnail: str
    status: str
    values: list[Value]


def systems(results: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """Return the scores of each system, by name."""
    return {name: value for name, value in results.items() if isinstance(value, Mapping) and "fields" in value}


def view(data: ReportData) -> dict[str, Any]:
    """Return the tables of the section; empty if score_products.py was not run."""
    if "score_products" not in data.stages:
        return {}
    results = data.stages["score_products"]["results"]
    found = systems(results)
    last = list(found)[-1] if found else ""
    f1 = {one["field"]: one["f1"] or 0.0 for one in found[last]["fields"]} if last else {}
    fields, differences = field_rows(found, f1), _difference_rows(results, list(found), f1)
    return {
        "split": results["split"],
        "documents": [{**one, "label": label(name)} for name, one in found.items()],
        "fields": fields,
        "knows_absence": any(one.n_absent for one in fields),
        "differences": [one for one in differences if one.field == DOCUMENT],
        "field_differences": [one for one in differences if one.field != DOCUMENT],
        "coverage": _coverage_rows(data, found[last]) if last else [],
        "calibration": _calibration_rows(found, f1),
        "thresholds": _threshold_rows(data.field_confidence),
        "error_rate": _ERROR_RATE,
        "example_system": label(last),
        "examples": _examples(data, data.product_answers.get(last, ()), f1),
    }


def card_view(data: ReportData) -> dict[str, Any]:
    """Return the results of the trained model on structured answers for its card; empty for a model of categories.

    unread: fields with a known truth that it does not answer better than the most frequent values of train.
    """
    if data.target != "product":
        return {}
    results = data.stages.get("score_products", {}).get("results", {})
    scores = systems(results).get("finetuned")
    if scores is None or results["split"] != "test":
        return {"fields": []}
    f1 = {one["field"]: one["f1"] or 0.0 for one in scores["fields"]}
    fields = field_rows({"finetuned": scores}, {name: -value for name, value in f1.items()})
    compared = results.get("finetuned_minus_majority", {})
    unread = [one.field for one in fields if one.n_known and compared.get(one.field, {}).get("low", 0.0) <= 0]
    keys = ("correct", "substituted", "invented", "n_unscored")
    n_values = sum(one[key] for one in scores["fields"] for key in keys)
    return {
        "document": scores,
        "fields": fields,
        "unread": unread,
        "n_values": n_values,
        "n_wrong": sum(one["substituted"] for one in scores["fields"]),
        "n_invented": sum(one["invented"] for one in scores["fields"]),
        "n_absent": sum(one.get("n_absent", 0) for one in scores["fields"]),
        "n_unverified": sum(one["n_unscored"] for one in scores["fields"]),
        "thresholds": _threshold_rows(data.field_confidence),
        "error_rate": _ERROR_RATE,
    }


def label(system: str) -> str:
    """Return how the report names a system."""
    return _LABELS.get(system, system)


def field_rows(found: Mapping[str, Mapping[str, Any]], f1: Mapping[str, float]) -> list[FieldRow]:
    """Return a row per field with a known truth and system, fields by rising `f1`; those without values come last."""
    rows = [
        FieldRow(system=label(name), **{key: one[key] for key in FieldRow._fields if key in one})
        for name, scores in found.items()
        for one in scores["fields"]
        if one["n_known"] or one.get("n_absent")
    ]
    return sorted(rows, key=lambda row: (not row.n_known, f1.get(row.field, 0.0), row.field))


def _difference_rows(
    results: Mapping[str, Any], names: Sequence[str], f1: Mapping[str, float]
) -> list[DifferenceRow]:  # fmt: skip
    rows = [
        DifferenceRow(field, f"{label(later)} minus {label(earlier)}", **one)
        for later in names[-_N_COMPARED:]
        for earlier in names
        for field, one in results.get(f"{later}_minus_{earlier}", {}).items()
    ]
    return sorted(rows, key=lambda row: (f1.get(row.field, 0.0), row.field))


def _coverage_rows(data: ReportData, scores: Mapping[str, Any]) -> list[CoverageRow]:
    facts = data.stages.get("product_facts", {}).get("results", {})
    by_source = [
        {field: ", ".join(f"{source} {n}" for source, n in counts.items()) for field, counts in facts[key].items()}
        if key in facts
        else {}
        for key in ("coverage", "absent")
    ]
    return [
        CoverageRow(
            one["field"], one["n_known"], one.get("n_absent", 0), scores["n"],
            *(sources.get(one["field"], "") for sources in by_source),
        )
        for one in scores["fields"]
    ]  # fmt: skip


def _calibration_rows(found: Mapping[str, Mapping[str, Any]], f1: Mapping[str, float]) -> list[CalibrationRow]:
    rows = [
        CalibrationRow(system=label(name), **{key: one[key] for key in CalibrationRow._fields if key != "system"})
        for name, scores in found.items()
        for one in scores.get("calibration", ())
        if one["n"]
    ]
    return sorted(rows, key=lambda row: (f1.get(row.field, 0.0), row.field))


def _threshold_rows(confidence: Mapping[str, Any]) -> list[ThresholdRow]:
    rows = []
    for name, one in confidence.get("fields", {}).items():
        chosen = next((row for row in one["wanted"] if row["wanted_risk"] == _ERROR_RATE), None)
        if one["n_val"] and chosen:
            rows.append(
                ThresholdRow(
                    name, one["n_val"], one["ece_before"], one["ece"], chosen["threshold"], chosen["test_coverage"],
                    chosen["test_risk"],
                )
            )  # fmt: skip
    return rows


def _examples(
    data: ReportData, answers: Sequence[Mapping[str, Any]], f1: Mapping[str, float]
) -> list[Example]:  # fmt: skip
    """Return the first images of the first products, with the fields that have a value, the worst fields first."""
    thumbnails = {one.image_id: one.thumbnail for one in data.images}
    first: dict[str, Mapping[str, Any]] = {}
    for one in answers:
        first.setdefault(one["image_id"].rpartition("_")[0], one)
    return [
        Example(
            one["image_id"], thumbnails.get(one["image_id"], ""), one["status"],
            sorted(_values(one), key=lambda value: f1.get(value.field, 0.0)),
        )
        for one in list(first.values())[:_N_EXAMPLES]
    ]  # fmt: skip


def _values(answer: Mapping[str, Any]) -> list[Value]:
    product, absent = answer["product"] or {}, answer.get("absent", ())
    return [
        Value(name, "none" if name in absent else _text(truth), _text(product.get(name)))
        for name, truth in answer["truth"].items()
        if truth is not None or product.get(name) is not None
    ]


def _text(value: Any) -> str:
    text = "" if value is None else ", ".join(map(str, value)) if isinstance(value, list) else str(value)
    return text if len(text) <= _MAX_CHARACTERS else f"{text[:_MAX_CHARACTERS]} …"
