"""The files that a run leaves in its log folder: history, curves, predictions and metrics of val and test."""

import logging
from collections.abc import Sequence
from typing import Any

from skincare import tables
from skincare.evaluation import (
    comparison,
    confidence,
    confidence_plot,
    confusion_plot,
    field_calibrators,
    field_policy,
    metrics,
    rescoring,
)
from skincare.evaluation.calibration import ERROR_RATES
from skincare.evaluation.metrics import Scores
from skincare.files import write_json
from skincare.inference import predictions
from skincare.inference.classifier import Classifier
from skincare.inference.manifest import write_manifest
from skincare.inference.predictions import Prediction
from skincare.inference.product_answers import scored_predictions
from skincare.paths import Layout
from skincare.product import store
from skincare.prompts import target_of
from skincare.tables import HistoryRow, ProductHistoryRow
from skincare.training import export_check, training_plots
from skincare.training.epoch_results import EpochResult
from skincare.training.loop import Trainer
from skincare.training.model_export import ExportStatistics
from skincare.training.run_folders import RunFolders

logger = logging.getLogger(__name__)


def describe_epoch(row: HistoryRow) -> str:
    """Return loss and metrics of an epoch on val, the one that selects the epoch first."""
    if isinstance(row, ProductHistoryRow):
        return (
            f"val document ANLS* {row.val_document_anls:.3f}, loss {row.val_loss:.3f}, category accuracy "
            f"{100 * row.val_accuracy:.1f} %"
        )
    return f"val loss {row.val_loss:.3f}, accuracy {100 * row.val_accuracy:.1f} %"


class RunOutputs:
    """Writes the outputs of one run."""

    def __init__(self, layout: Layout, run: RunFolders) -> None:
        self.layout = layout
        self.run = run
        self.log = layout.finetune_log(run.working_name)
        self.plots = layout.run_plots(run.working_name)

    def record_epoch(self, trainer: Trainer, result: EpochResult) -> None:
        """Write history, curves and confusion matrix; for the best epoch also its predictions."""
        is_product = target_of(trainer.spec.data.labels) == "product"
        table: tables.Table[Any] = tables.PRODUCT_HISTORY if is_product else tables.HISTORY
        history: list[HistoryRow] = [table.row_type(**row) for row in trainer.progress.history]
        table.write(self.log / "history.csv", history)
        training_plots.draw_training_curves(history, trainer.progress.best_epoch, self.plots)
        epoch = result.row.epoch
        matrix = self.plots / f"cm_epoch_{epoch}.png"
        confusion_plot.draw_confusion_matrix(result.scores, f"Validation, epoch {epoch}", matrix)
        if result.is_best:
            predictions.write_jsonl(self.log / "val_predictions.jsonl", result.predictions)
        logger.info("epoch %d: %s%s", epoch, describe_epoch(result.row), " (best)" if result.is_best else "")

    def evaluate(self, trainer: Trainer, export: ExportStatistics) -> tuple[dict[str, Any], Scores]:
        """Evaluate the exported model on test, once; compare it with zero-shot and the baselines where they exist.

        Returns the comparison of the export with the training on val, and the scores on test.
        """
        data, settings = trainer.spec.data, trainer.spec.settings
        folder = self.layout.finetuned_model(self.run.working_name)
        exported = Classifier.load(
            folder, data.labels, data.files, vision_cache=self.layout.vision_cache if settings.cache_images else None,
            prediction_cache=self.layout.answer_cache,
        )  # fmt: skip
        exported.source = self.layout.finetuned_model(self.run.name)  # the manifest names the final folder
        tested = exported.predict(data.test, "test", exported.decoder(trainer.decoder_name))
        written = {"test_predictions.jsonl": tested}
        # Structured answers have no ranking of labels.
        if target_of(data.labels) == "category":
            written["test_ranked.jsonl"] = self._rank(trainer, exported)["test"]
        else:
            self._summarise_fields(trainer, exported, tested)
        write_manifest(self.log, exported, settings, written)
        scores = metrics.score(tested, data.labels)
        predictions.write_jsonl(self.log / "test_predictions.jsonl", tested)
        confusion_plot.draw_confusion_matrix(scores, "After training", self.plots / "cm_after_training.png")
        rescoring.compare_with_zero_shot(self.layout, self.log, tested)
        comparison.compare_with_baselines(self.layout, self.log)
        check = export_check.evaluate_export(trainer, export, exported, self._selected_predictions(trainer))
        write_json(self.log / "export.json", check)
        # Written last: its presence marks the run as finished.
        write_json(self.log / "test_metrics.json", metrics.to_json(scores))
        return check, scores

    def _rank(self, trainer: Trainer, exported: Classifier) -> dict[str, list[Prediction]]:
        """Write and return predictions with probabilities, which free text lacks, and the confidence that they give."""
        decoder = exported.decoder("rank" if trainer.decoder_name == "generate" else trainer.decoder_name)
        examples = {"val": trainer.val, "test": trainer.spec.data.test}
        ranked = {split: exported.predict(part, split, decoder) for split, part in examples.items()}
        for split, predicted in ranked.items():
            predictions.write_jsonl(self.log / f"{split}_ranked.jsonl", predicted)
        summary = confidence.summarise(ranked["val"], ranked["test"], ERROR_RATES, trainer.spec.data.labels)
        write_json(self.log / "confidence.json", summary)
        confidence_plot.draw_confidence(summary, self.plots / "confidence.png")
        return ranked

    def _summarise_fields(self, trainer: Trainer, exported: Classifier, tested: Sequence[Prediction]) -> None:
        """Write the calibrators and thresholds of the fields of structured answers, chosen on val."""
        data = trainer.spec.data
        on_val = exported.predict(data.val, "val", exported.decoder(trainer.decoder_name))
        absent = store.read_absent_fields(self.layout.product_facts)
        summary = field_calibrators.summarise(
            scored_predictions(data.val, on_val, absent), scored_predictions(data.test, tested, absent)
        )
        write_json(self.log / field_policy.FILE, summary)

    def _selected_predictions(self, trainer: Trainer) -> list[Prediction]:
        """Return the selected epoch's predictions on val; none if the run was interrupted before they were written."""
        path = self.log / "val_predictions.jsonl"
        labels = trainer.spec.data.labels
        found = predictions.read_jsonl(path, labels) if path.is_file() else []
        return found if found and metrics.score(found, labels).accuracy == trainer.progress.best_accuracy else []
