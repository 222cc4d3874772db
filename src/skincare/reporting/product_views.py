"""The section on structured answers: what score_products.py wrote, as rows of the report."""

from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

from skincare.reporting.report_data import ReportData

_LABELS: Final = {
    "reader": "Rules on the text of the pack",
    "majority": "Most frequent values of train",
    "zero_shot": "The model before training",
    "finetuned": "The model after training",
    "model": "Answers of --answers",
}
_N_EXAMPLES: Final = 6
_MAX_CHARACTERS: Final = 160


class FieldRow(NamedTuple):
    """The scores of one system on one field; None where a denominator is zero."""

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


class DifferenceRow(NamedTuple):
    """The paired difference of two systems' shares of correct values of a field."""

    field: str
    systems: str
    n_known: int
    difference: float
    low: float
    high: float
    products_p: float


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
    return {
        "split": results["split"],
        "documents": [{**one, "label": _label(name)} for name, one in found.items()],
        "fields": _field_rows(found, last),
        "differences": _difference_rows(results, list(found)),
        "example_system": _label(last),
        "examples": _examples(data, data.product_answers.get(last, ())),
    }


def _label(system: str) -> str:
    return _LABELS.get(system, system)


def _field_rows(found: Mapping[str, Mapping[str, Any]], last: str) -> list[FieldRow]:
    """Return a row per field and system, fields by rising F1 of the last system."""
    f1 = {one["field"]: one["f1"] for one in found[last]["fields"]} if last else {}
    rows = [
        FieldRow(system=_label(name), **{key: one[key] for key in FieldRow._fields if key != "system"})
        for name, scores in found.items()
        for one in scores["fields"]
        if one["n_known"]
    ]
    return sorted(rows, key=lambda row: (f1.get(row.field) or 0.0, row.field))


def _difference_rows(results: Mapping[str, Any], names: Sequence[str]) -> list[DifferenceRow]:
    return [
        DifferenceRow(field, f"{_label(later)} minus {_label(earlier)}", **one)
        for earlier in names
        for later in names
        for field, one in results.get(f"{later}_minus_{earlier}", {}).items()
    ]


def _examples(data: ReportData, answers: Sequence[Mapping[str, Any]]) -> list[Example]:
    """Return the first images of the first products, with the fields that have a value."""
    thumbnails = {one.image_id: one.thumbnail for one in data.images}
    first: dict[str, Mapping[str, Any]] = {}
    for one in answers:
        first.setdefault(one["image_id"].rpartition("_")[0], one)
    return [
        Example(
            one["image_id"], thumbnails.get(one["image_id"], ""), one["status"],
            [
                Value(name, _text(truth), _text(one["product"].get(name)))
                for name, truth in one["truth"].items()
                if truth is not None or one["product"].get(name) is not None
            ],
        )
        for one in list(first.values())[:_N_EXAMPLES]
    ]  # fmt: skip


def _text(value: Any) -> str:
    text = "" if value is None else ", ".join(map(str, value)) if isinstance(value, list) else str(value)
    return text if len(text) <= _MAX_CHARACTERS else f"{text[:_MAX_CHARACTERS]} …"
