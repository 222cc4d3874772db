"""The tables and charts of the report as rows of text and numbers, which a template only formats."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from skincare import reference_experiment
from skincare.evaluation.metrics import Scores
from skincare.labels import UNKNOWN, Labels
from skincare.reporting.report_data import ReportData

NOTHING: Final = "–"
# Heading of a matrix's last column: "Unknown" would look like one more category.
NO_ANSWER: Final = "no answer"
_BLUE: Final = (0, 114, 178)
_ORANGE: Final = (213, 94, 0)
_PALEST: Final = 0.1


def percent(value: float | None) -> str:
    """Return a share as a percentage with one decimal."""
    return NOTHING if value is None else f"{100 * value:.1f}%"


class Score(NamedTuple):
    """A row of the headline table as text; empty: not applicable."""

    label: str
    before: str
    after: str
    difference: str
    published: str


_SCORES: Final = (
    ("accuracy", "Accuracy"),
    ("f1_macro", "Macro F1"),
    ("coverage", "Coverage (outputs that name a category)"),
    ("selective_accuracy", "Accuracy of those"),
    ("parent_accuracy", "Accuracy of the family of categories"),
    ("precision_weighted", "Weighted precision"),
    ("recall_weighted", "Weighted recall (equals accuracy)"),
    ("f1_weighted", "Weighted F1"),
)
_DIFFERENCES: Final = {"accuracy": "difference", "f1_macro": "f1_macro_difference"}


def headline_table(data: ReportData) -> list[Score]:
    """Return the scores before and after training, and those published by the reference experiment."""
    rows = [_score(data, key, label) for key, label in _SCORES]
    published = f"{reference_experiment.N_TEST} (split by image)"
    return [*rows, Score("Test images (products)", _size(data.before), _size(data.after), "", published)]


def _score(data: ReportData, key: str, label: str) -> Score:
    before, after = (getattr(scores, key) if scores else None for scores in (data.before, data.after))
    published = " → ".join(percent(side.get(key)) for side in (reference_experiment.BEFORE, reference_experiment.AFTER))
    difference = f"{100 * (after - before):+.1f}" if before is not None and after is not None else ""
    measured = _DIFFERENCES.get(key, "")
    if difference and f"{measured}_low" in data.comparison:
        low, high = (100 * data.comparison[f"{measured}_{end}"] for end in ("low", "high"))
        difference += f" ({low:+.1f} to {high:+.1f})"
    if key not in reference_experiment.BEFORE:
        published = ""
    return Score(label, _with_interval(data.before, key), _with_interval(data.after, key), difference, published)


def setting_rows(settings: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return (name, text) of each setting; those of a nested mapping as "outer.inner", a list joined by commas."""
    rows: list[tuple[str, str]] = []
    for name, value in settings.items():
        if isinstance(value, Mapping) and value:
            rows += [(f"{name}.{inner}", text) for inner, text in setting_rows(value)]
        else:
            rows.append((name, _setting(value)))
    return rows


def _setting(value: Any) -> str:
    if value is None or value in ("", [], {}):
        return NOTHING
    if isinstance(value, bool):
        return "yes" if value else "no"
    return ", ".join(_setting(one) for one in value) if isinstance(value, list | tuple) else str(value)


def detectable_points(data: ReportData) -> str:
    """Return the smallest detectable difference of the paired comparison in points, that of products where known."""
    comparison = data.comparison
    if not comparison:
        return ""
    plain = comparison["smallest_detectable_difference"]
    return f"{100 * comparison.get('smallest_detectable_difference_products', plain):.0f}"


def _with_interval(scores: Scores | None, key: str) -> str:
    if scores is None:
        return NOTHING
    ends = [getattr(scores, f"{key}_{end}", None) for end in ("low", "high")]
    interval = "" if None in ends else f" ({percent(ends[0])} to {percent(ends[1])})"
    return percent(getattr(scores, key)) + interval


def _size(scores: Scores | None) -> str:
    return f"{scores.n:,} ({scores.n_products:,})" if scores else NOTHING


class MethodRow(NamedTuple):
    """A row of the chart of model and baselines; low and high are None if no interval was measured."""

    label: str
    accuracy: float
    low: float | None
    high: float | None
    f1_macro: float | None
    is_model: bool


def method_rows(data: ReportData) -> list[MethodRow]:
    """Return the baselines and the model by rising accuracy."""
    found = data.stages["baselines"]["results"]["scores"] if "baselines" in data.stages else {}
    rows = [_method_row(one.get("label", name), one) for name, one in found.items()]
    for label, scores in (("The model before training", data.before), ("The model after training", data.after)):
        if scores:
            rows.append(MethodRow(label, scores.accuracy, scores.accuracy_low, scores.accuracy_high, scores.f1_macro,
                                  is_model=True))  # fmt: skip
    return sorted(rows, key=lambda row: row.accuracy)


def _method_row(label: str, one: Mapping[str, Any]) -> MethodRow:
    return MethodRow(
        label, one["accuracy"], one.get("accuracy_low"), one.get("accuracy_high"), one.get("f1_macro"), is_model=False
    )


@dataclass(frozen=True)
class Cell:
    """One cell of a matrix: its text, its colours (empty: none), and the predicted category that it counts."""

    text: str
    background: str
    ink: str
    answer: str
    is_correct: bool


class MatrixRow(NamedTuple):
    """One true category."""

    category: str
    n: int
    cells: list[Cell]


def matrix(scores: Scores) -> list[MatrixRow]:
    """Return a confusion matrix as rows of cells; the colour is the share of the row."""
    return _matrix_rows(_names(scores), scores.confusion, [sum(row) for row in scores.confusion])


def difference_matrix(before: Scores, after: Scores) -> list[MatrixRow]:
    """Return the counts of after - before."""
    counts = [
        [b - a for a, b in zip(*rows, strict=True)] for rows in zip(before.confusion, after.confusion, strict=True)
    ]
    return _matrix_rows(_names(after), counts, [sum(row) for row in after.confusion], signed=True)


def _names(scores: Scores) -> list[str]:
    return [one.category for one in scores.categories]


def _matrix_rows(
    names: Sequence[str], counts: Sequence[Sequence[int]], totals: Sequence[int], *, signed: bool = False
) -> list[MatrixRow]:
    rows = []
    for category, row, n in zip(names, counts, totals, strict=True):
        cells = [
            Cell(
                (f"{count:+d}" if signed else str(count)) if count else "",
                *(shade(count / max(n, 1)) if count else ("", "")),
                answer,
                answer == category,
            )
            for answer, count in zip((*names, UNKNOWN), row, strict=True)
        ]
        rows.append(MatrixRow(category, n, cells))
    return rows


def shade(share: float) -> tuple[str, str]:
    """Return the colour of a share (blue, negative: orange), and black or white, whichever has the higher contrast."""
    depth = _PALEST + (1 - _PALEST) * min(abs(share), 1.0)
    red, green, blue = (round(255 + (c - 255) * depth) for c in (_ORANGE if share < 0 else _BLUE))
    # One of the two always has the contrast of 4.5 that WCAG requires.
    ink = "#000000" if luminance(red, green, blue) > 0.179 else "#ffffff"
    return f"#{red:02x}{green:02x}{blue:02x}", ink


def luminance(*colour: int) -> float:
    """Return the relative luminance of an sRGB colour, 0 to 1. Source: WCAG 2.2."""
    linear = [v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4 for v in (c / 255 for c in colour)]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def category_rows(data: ReportData) -> list[dict[str, Any]]:
    """Return the scores of each category: `now` of the last model, `before` of the untrained one if there are both."""
    last = data.last
    earlier = data.before.categories if data.before and data.after else [None] * len(last.categories)
    return [{"now": now, "before": before} for now, before in zip(last.categories, earlier, strict=True)]


def counts_except(data: ReportData, stage: str, name: str) -> dict[str, int]:
    """Return the counts of a stage without the one of this name; empty if the stage was not run."""
    counts = data.stages[stage]["counts"] if stage in data.stages else {}
    return {reason: n for reason, n in counts.items() if reason != name}


class StatusRow(NamedTuple):
    """The number of outputs with a parse status, before and after training."""

    status: str
    before: int
    after: int


def status_rows(data: ReportData) -> list[StatusRow]:
    """Return the parse statuses by falling frequency."""
    counts = [scores.statuses if scores else {} for scores in (data.before, data.after)]
    names = sorted({*counts[0], *counts[1]}, key=lambda name: (-counts[1].get(name, 0), -counts[0].get(name, 0), name))
    return [StatusRow(name, counts[0].get(name, 0), counts[1].get(name, 0)) for name in names]


class FamilyRow(NamedTuple):
    """One family: shares of its images by prediction: correct, another category of the family, another family, none."""

    family: str
    members: str
    n: int
    right: float
    near: float
    far: float
    unanswered: float


def family_rows(scores: Scores, labels: Labels) -> list[FamilyRow]:
    """Return how the images of each family were predicted."""
    rows = []
    for family, members in labels.families:
        places = [labels.index(name) for name in members]
        counts = [scores.confusion[place] for place in places]
        n = sum(map(sum, counts))
        right = sum(row[place] for row, place in zip(counts, places, strict=True))
        inside = sum(row[place] for row in counts for place in places)
        unanswered = sum(row[-1] for row in counts)
        parts = (right, inside - right, n - inside - unanswered, unanswered)
        rows.append(FamilyRow(family, ", ".join(members), n, *(part / max(n, 1) for part in parts)))
    return rows


# Label and keys in the manifest of what must be equal for two results to be comparable.
_PROVENANCE: Final[dict[str, tuple[str, ...]]] = {
    "model": ("model", "source"),
    "revision": ("model", "revision"),
    "parameters": ("model", "n_parameters"),
    "weight hash": ("evaluation", "weight_hash"),
    "computed in": ("evaluation", "dtype"),
    "device": ("evaluation", "device"),
    "image processor": ("evaluation", "processor"),
    "minimum pixels": ("evaluation", "min_pixels"),
    "maximum pixels": ("evaluation", "max_pixels"),
    "template hash": ("evaluation", "template_hash"),
    "prompt hash": ("evaluation", "prompt_hash"),
    "decoder version": ("decoder_version",),
    "parser version": ("parser_version",),
    "training seed": ("seeds", "training"),
    "bootstrap seed": ("seeds", "bootstrap"),
}


def provenance(data: ReportData) -> dict[str, list[str]]:
    """Return label -> one value per manifest of the predictions; labels without any value are omitted."""
    rows = {label: [_at(one, path) for one in data.manifests.values()] for label, path in _PROVENANCE.items()}
    rows["images predicted"] = [_predicted(one) for one in data.manifests.values()]
    return {label: values for label, values in rows.items() if any(values)}


def _predicted(manifest: Mapping[str, Any]) -> str:
    return "; ".join(
        f"{one['n']} of {one['split']} by {one['decoder']}, data {one['data_fingerprint']}"
        for one in manifest.get("predictions", {}).values()
    )


def _at(manifest: Mapping[str, Any], path: Sequence[str]) -> str:
    found: Any = manifest
    for key in path:
        found = found.get(key) if isinstance(found, Mapping) else None
    return "" if found is None else f"{found:,}" if path[-1] == "n_parameters" else str(found)
