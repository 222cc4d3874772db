"""The report as one HTML page that needs nothing else, and as Markdown: data in, text out.

Everything that came from a shop or a model is escaped. The templates stand in `templates/`.
"""

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NamedTuple

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import escape

from skincare import reference
from skincare.categories import CATEGORIES, UNKNOWN
from skincare.metrics import Scores
from skincare.report_data import STAGES, ReportData

_TEMPLATES: Final = Path(__file__).with_name("templates")
NOTHING: Final = "–"


class Score(NamedTuple):
    """A row of the headline table, as text; empty where there is nothing to say."""

    label: str
    before: str
    after: str
    difference: str
    published: str


_SCORES: Final = (
    ("accuracy", "Accuracy"),
    ("f1_macro", "Macro F1"),
    ("coverage", "Coverage (answers that name a category)"),
    ("selective_accuracy", "Accuracy among those"),
    ("parent_accuracy", "Right family of categories"),
    ("precision_weighted", "Weighted precision"),
    ("recall_weighted", "Weighted recall (is accuracy)"),
    ("f1_weighted", "Weighted F1"),
)


def headline_table(data: ReportData) -> list[Score]:
    """Return the scores before and after training beside the published ones of the reference."""
    rows = [_score(data, key, label) for key, label in _SCORES]
    published = f"{reference.N_TEST} (split by picture)"
    return [*rows, Score("Test pictures (products)", _size(data.before), _size(data.after), "", published)]


def _score(data: ReportData, key: str, label: str) -> Score:
    before, after = (getattr(scores, key) if scores else None for scores in (data.before, data.after))
    published = " → ".join(percent(side.get(key)) for side in (reference.BEFORE, reference.AFTER))
    shown = _with_interval if key == "accuracy" else lambda scores: percent(getattr(scores, key, None))
    difference = f"{100 * (after - before):+.1f}" if before is not None and after is not None else ""
    if key == "accuracy" and data.comparison:
        low, high = (100 * data.comparison[f"difference_{end}"] for end in ("low", "high"))
        difference += f" ({low:+.1f} to {high:+.1f})"
    return Score(label, shown(data.before), shown(data.after), difference, published if key in reference.BEFORE else "")


def _with_interval(scores: Scores | None) -> str:
    if scores is None:
        return NOTHING
    return f"{percent(scores.accuracy)} ({percent(scores.accuracy_low)} to {percent(scores.accuracy_high)})"


def _size(scores: Scores | None) -> str:
    return f"{scores.n:,} ({scores.n_products:,})" if scores else NOTHING


def percent(value: float | None) -> str:
    """Return a share as a percentage with one decimal."""
    return NOTHING if value is None else f"{100 * value:.1f}%"


@dataclass(frozen=True)
class Cell:
    """One cell of a matrix: the shown text, the share of its row that colours it, and what it counts."""

    text: str
    share: float
    answer: str
    is_right: bool


class MatrixRow(NamedTuple):
    """One true category."""

    category: str
    n: int
    cells: list[Cell]


def matrix(scores: Scores) -> list[MatrixRow]:
    """Return a confusion matrix as rows of cells, coloured by the share of the row."""
    return _matrix_rows(scores.confusion, [sum(row) for row in scores.confusion])


def difference_matrix(before: Scores, after: Scores) -> list[MatrixRow]:
    """Return after - before; positive counts are answers that training added."""
    counts = [
        [b - a for a, b in zip(*rows, strict=True)] for rows in zip(before.confusion, after.confusion, strict=True)
    ]
    return _matrix_rows(counts, [sum(row) for row in after.confusion], signed=True)


def _matrix_rows(counts: Sequence[Sequence[int]], totals: Sequence[int], *, signed: bool = False) -> list[MatrixRow]:
    columns = (*CATEGORIES, UNKNOWN)
    return [
        MatrixRow(
            category,
            n,
            [
                Cell(
                    (f"{count:+d}" if signed else str(count)) if count else "",
                    count / max(n, 1),
                    answer,
                    answer == category,
                )
                for answer, count in zip(columns, row, strict=True)
            ],
        )
        for category, row, n in zip(CATEGORIES, counts, totals, strict=True)
    ]


def html(data: ReportData) -> str:
    """Return the page; the same data, the same text."""
    return _environment(autoescape=True).get_template("report.html.j2").render(_context(data))


def markdown(data: ReportData, root: Path) -> str:
    """Return the report as Markdown that shows the plots of `root` by relative paths."""
    plots = {name: path.relative_to(root).as_posix() for name, path in data.plots.items()}
    template = _environment(autoescape=False).get_template("report.md.j2")
    return template.render({**_context(data), "plots": plots})


def _environment(*, autoescape: bool) -> Environment:
    environment = Environment(
        loader=FileSystemLoader(_TEMPLATES),
        autoescape=autoescape,  # noqa: S701  Markdown has its own filter, `cell`
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"percent": percent, "data_uri": _data_uri, "cell": _markdown_cell, "seconds": _duration}
    return environment


def _context(data: ReportData) -> dict[str, Any]:
    both = data.before is not None and data.after is not None
    return {
        "data": data,
        "stages": data.stages,
        "stage_names": STAGES,
        "plots": data.plots,
        "scores": headline_table(data),
        "categories": CATEGORIES,
        "columns": (*CATEGORIES, UNKNOWN),
        "unknown": UNKNOWN,
        "before_matrix": matrix(data.before) if data.before else [],
        "after_matrix": matrix(data.after) if data.after else [],
        "difference_matrix": difference_matrix(data.before, data.after) if both else [],  # type: ignore[arg-type]
        "category_rows": _category_rows(data),
        "statuses": _status_rows(data),
        "reference": {"before": reference.BEFORE, "after": reference.AFTER, "scraping": reference.SCRAPING,
                      "cleaning": reference.CLEANING},
    }  # fmt: skip


def _category_rows(data: ReportData) -> list[dict[str, Any]]:
    """Return per category what changed; the numbers of the last model where there are two."""
    last = data.after or data.before
    assert last is not None
    earlier = data.before.categories if data.before and data.after else [None] * len(last.categories)
    return [{"now": now, "before": before} for now, before in zip(last.categories, earlier, strict=True)]


def _status_rows(data: ReportData) -> list[tuple[str, int, int]]:
    counts: list[Mapping[str, int]] = [scores.statuses if scores else {} for scores in (data.before, data.after)]
    return [(status, *(count.get(status, 0) for count in counts)) for status in sorted({*counts[0], *counts[1]})]  # type: ignore[misc]


def _data_uri(path: Path) -> str:
    return "data:image/png;base64," + base64.b64encode(path.read_bytes()).decode()


def _markdown_cell(value: object) -> str:
    """Return text that stays text in a Markdown table."""
    text = " ".join(str(escape(str(value))).split())
    return "".join(f"\\{c}" if c in "\\`*_[]|" else c for c in text)


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s" if minutes else f"{rest} s"
