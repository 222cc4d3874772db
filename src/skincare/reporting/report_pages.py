"""The report as one self-contained HTML page and as Markdown.

Text from shops and models is escaped. The templates are in `templates/`.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from jinja2 import Environment

from skincare import reference_experiment
from skincare.html_pages import data_uri, template_environment
from skincare.labels import UNKNOWN, skincare_labels
from skincare.reporting import export_views, product_views, reader_views, report_texts, report_views
from skincare.reporting.report_data import CONFIDENCE_BANDS, STAGES, ReportData


class Pages(NamedTuple):
    """The report in both formats; equal data give equal text."""

    html: str
    markdown: str


def render(data: ReportData, root: Path) -> Pages:
    """Return both pages; the paths to plots in Markdown are relative to `root`."""
    context = _context(data)
    plots = {name: path.relative_to(root).as_posix() for name, path in data.plots.items()}
    return Pages(
        environment(autoescape=True).get_template("report.html.j2").render(context),
        environment(autoescape=False).get_template("report.md.j2").render({**context, "plots": plots}),
    )


def environment(*, autoescape: bool) -> Environment:
    """Return the templates with their filters; for Markdown without autoescape, where `cell` and `fenced` escape."""
    found = template_environment(autoescape=autoescape)
    found.filters |= {
        "percent": report_views.percent, "data_uri": _data_uri, "cell": _markdown_cell, "fenced": _fenced,
        "seconds": _duration, "settings": report_views.setting_rows,
        "reasons": _counts_by_reason,
    }  # fmt: skip
    return found


def _context(data: ReportData) -> dict[str, Any]:
    before = report_views.matrix(data.before) if data.before else []
    after = report_views.matrix(data.after) if data.after else []
    difference = report_views.difference_matrix(data.before, data.after) if data.before and data.after else []
    return {
        "data": data,
        "last": data.last,
        "stages": data.stages,
        "stage_names": STAGES,
        "plots": data.plots,
        "scores": report_views.headline_table(data),
        "method_rows": report_views.method_rows(data),
        "categories": data.labels.names,
        "columns": (*data.labels.names, UNKNOWN),
        "unknown": UNKNOWN,
        "no_answer": report_views.NO_ANSWER,
        "confidence_bands": [name for _, name in CONFIDENCE_BANDS],
        "before_matrix": before,
        "after_matrix": after,
        "difference_matrix": difference,
        "category_rows": report_views.category_rows(data),
        "family_rows": report_views.family_rows(data.last, data.labels),
        "export_rows": export_views.rows(data),
        "export_note": export_views.note(data),
        "statuses": report_views.status_rows(data),
        "detectable_points": report_views.detectable_points(data),
        "reader_verdict": reader_views.reader_verdict(data),
        "fused_comparisons": reader_views.fused_comparisons(data),
        "hint_sources": report_texts.HINT_SOURCES,
        "status_note": report_texts.STATUS_NOTE,
        "saliency_methods": report_texts.SALIENCY_METHODS,
        "attention_maps": report_texts.ATTENTION_MAPS,
        "attention_notes": report_texts.ATTENTION_NOTES,
        "notice": report_texts.notice(data),
        "limitations": report_texts.limitations(data),
        "imported": data.stages.get("import_images"),
        "not_imported": report_views.counts_except(data, "import_images", "imported"),
        "rejected": report_views.counts_except(data, "clean", "kept"),
        "products": product_views.view(data),
        "provenance": report_views.provenance(data),
        "has_reference": data.labels.names == skincare_labels().names,
        "reference": {
            "before": reference_experiment.BEFORE,
            "after": reference_experiment.AFTER,
            "scraping": reference_experiment.SCRAPING,
            "cleaning": reference_experiment.CLEANING,
        },
    }  # fmt: skip


def _data_uri(path: Path) -> str:
    return data_uri(path.read_bytes(), "jpeg" if path.suffix == ".jpg" else "png")


def _markdown_cell(value: object) -> str:
    """Return text for a Markdown table, escaped; entities only for characters that Markdown would take for HTML."""
    text = " ".join(str(value).split()).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return "".join(f"\\{c}" if c in "\\`*_[]|" else c for c in text)


def _counts_by_reason(counts: Mapping[str, int]) -> str:
    """Return counts by reason as Markdown text; "none" without any."""
    return ", ".join(f"{_markdown_cell(reason.replace('_', ' '))} {n:,}" for reason, n in counts.items()) or "none"


def _fenced(text: str) -> str:
    """Return text as a Markdown code block with a fence that the text does not contain."""
    fence = "```"
    while fence in text:
        fence += "`"
    return f"{fence}text\n{text}\n{fence}"


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s" if minutes else f"{rest} s"
