"""Write the report: what was measured, on what data, how, and what it is worth.

In: log/*.json and the predictions, scores, history and plots that the other stages wrote; nothing is measured here.
Out: report.md, report.html (one file that needs nothing else).
Command: python src/report.py
Time: 3 s.
"""

import logging
from dataclasses import dataclass

from skincare import report_data, report_pages, stage
from skincare.files import write_text
from skincare.paths import Layout
from skincare.report_data import ReportData
from skincare.runlog import Summary

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Config(stage.StageConfig):
    """What the stage can be told."""


def run(_config: Config, layout: Layout) -> Summary:
    """Read, render, write."""
    data = report_data.gather(layout)
    write_text(layout.report_markdown, report_pages.markdown(data, layout.root))
    page = report_pages.html(data)
    write_text(layout.report_html, page)
    for line in _table(data):
        logger.info("%s", line)
    return Summary(
        headline=f"{layout.report_html.name} ({len(page.encode()) / 1e6:.1f} MB) and {layout.report_markdown.name}",
        counts={"stages reported": len(data.stages), "test pictures": len(data.pictures)},
        results={"scores": [row._asdict() for row in report_pages.headline_table(data)]},
    )


def _table(data: ReportData) -> list[str]:
    """Return the headline table as lines of text."""
    rows = [("", "before", "after", "difference"), *(row[:4] for row in report_pages.headline_table(data))]
    widths = [max(len(row[i]) for row in rows) for i in range(4)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    if data.is_embedded_model:
        lines.append("The embedded tiny model on drawn products: this says nothing about the real one.")
    return ["", *lines, ""]


def main() -> None:
    """Run the stage from the command line."""
    stage.main("report", Config, run)


if __name__ == "__main__":
    main()
