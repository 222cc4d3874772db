"""Write the report of a run as HTML and Markdown, and the model card.

In: log/*.json and the predictions, scores, history and plots that the other stages wrote.
Out: report.md, report.html (self-contained), models/finetuned/<run>/README.md (the model card).
Command: python src/report.py
         python src/report.py --write-gate-baseline FILE   (also write the predictions as a gate baseline)
         python src/report.py --gate FILE   (exit code 1 if the model is significantly worse, 2 if FILE
                                             is missing, damaged or of other images)
Time: 3 s.
"""

import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import ClassVar

from skincare import runlog, stage
from skincare.files import write_text
from skincare.paths import Layout
from skincare.reporting import model_card, report_data, report_pages, report_texts, report_views
from skincare.reporting.gate import Gate
from skincare.runlog import Summary

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Config(stage.StageConfig):
    """Options of the stage."""

    resumes: ClassVar[bool] = False

    gate: Path | None = None
    """Gate baseline to compare the predictions with; the report is written in any case."""
    gate_margin: float = 0.0
    """The gate fails if the 95 % interval of the difference in accuracy, or in a metric of structured answers, is below
    this; -0.02 tolerates two points."""
    write_gate_baseline: Path | None = None
    """File to write the predictions to, as the baseline of later gates."""


def run(config: Config, layout: Layout) -> Summary:
    """Read the data, write report and model card, then check the gate."""
    data = report_data.gather(layout)
    gate = Gate(data, config.gate, config.gate_margin, config.write_gate_baseline)
    runlog.remove_summary("report", layout)
    pages = report_pages.render(data, layout.root)
    write_text(layout.report_markdown, pages.markdown)
    write_text(layout.report_html, pages.html)
    folder = layout.finetuned_model(data.stages["finetune"]["results"]["run"]) if data.after else None
    if folder and folder.is_dir():
        write_text(folder / "README.md", model_card.card(data))
    scores = report_views.headline_table(data)
    for line in _table(scores):
        logger.info("%s", line)
    if notice := report_texts.notice(data):
        logger.info("%s %s", notice.claim, notice.detail)
    verdict = gate.check()
    n_bytes = len(pages.html.encode())
    return Summary(
        headline=f"{layout.report_html.name} ({n_bytes / 1e6:.1f} MB) and {layout.report_markdown.name}"
        + (f", gate {verdict.verdict}" if verdict else ""),
        counts={"stages reported": len(data.stages), "test images": len(data.images)},
        results={
            "scores": [row._asdict() for row in scores],
            "gate": asdict(verdict) if verdict else None,
        },
        exit_code=1 if verdict and verdict.verdict == "failed" else 0,
    )


def _table(scores: Sequence[report_views.Score]) -> list[str]:
    """Return the headline table as lines of text."""
    rows = [("", "before", "after", "difference"), *(row[:4] for row in scores)]
    widths = [max(len(row[i]) for row in rows) for i in range(4)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    return ["", *lines, ""]


def main() -> None:
    """Run the stage from the command line."""
    stage.main("report", Config, run)


if __name__ == "__main__":
    main()
