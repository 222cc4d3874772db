"""The release gate of report.py, for categories and for structured answers."""

import logging
from collections.abc import Sequence
from pathlib import Path

from skincare.errors import MissingInputError
from skincare.evaluation import product_gate, release_gate
from skincare.evaluation.product_gate import ProductVerdict
from skincare.evaluation.product_metrics import ScoredProduct
from skincare.evaluation.release_gate import Verdict
from skincare.reporting.report_data import ReportData

logger = logging.getLogger(__name__)


class Gate:
    """Compares the predictions of a report with a baseline of the same target, and writes new baselines.

    baseline: the file to compare with. margin: the tolerated difference. write_to: the file of a new baseline. The
    baseline is read at once, so that a damaged one stops the stage before it writes; raises MissingInputError or
    GateBaselineError.
    """

    def __init__(self, data: ReportData, baseline: Path | None, margin: float, write_to: Path | None) -> None:
        self._data = data
        self._margin = margin
        self._write_to = write_to
        self._is_product = data.target == "product"
        self._products = product_gate.read_baseline(baseline) if baseline and self._is_product else None
        self._labels = release_gate.read_baseline(baseline, data.labels) if baseline and not self._is_product else None
        self._answers = self._product_answers() if baseline or write_to else []

    def check(self) -> Verdict | ProductVerdict | None:
        """Return the verdict, None without a baseline; write a new baseline unless the gate failed."""
        verdict: Verdict | ProductVerdict | None = None
        if self._products:
            verdict = product_gate.judge(self._products, self._answers, self._margin)
        elif self._labels:
            verdict = release_gate.judge(self._labels, [one.last for one in self._data.images], self._margin)
        if verdict:
            logger.info("%s", verdict)
        if self._write_to and verdict and verdict.verdict == "failed":
            logger.error("%s: not written, because the gate failed", self._write_to)
        elif self._write_to:
            self._write(self._write_to)
        return verdict

    def _write(self, path: Path) -> None:
        if self._is_product:
            product_gate.write_baseline(path, self._answers, {**self._source(), "system": self._system})
        else:
            release_gate.write_baseline(path, [one.last for one in self._data.images], self._source())

    @property
    def _system(self) -> str:
        return "finetuned" if self._data.after else "zero_shot"

    def _product_answers(self) -> Sequence[ScoredProduct]:
        """Return the model's structured answers; MissingInputError if score_products.py has not scored them."""
        if not self._is_product:
            return []
        if self._system not in self._data.product_answers:
            remedy = "Run `python src/score_products.py` first."
            raise MissingInputError("scored structured answers", f"log/products/{self._system}.jsonl", remedy)
        return product_gate.scored(self._data.product_answers[self._system])

    def _source(self) -> dict[str, str]:
        """Return model, run and commit of the predictions."""
        name = "finetune" if self._data.after else "zero_shot"
        stage_json = self._data.stages[name]
        return {
            "model": str(stage_json["results"]["model"]),
            "run": str(stage_json["results"].get("run", name)),
            "git_commit": str(stage_json["git_commit"]),
        }
