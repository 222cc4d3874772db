"""Evaluation of an epoch on val, and its row of the history."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

from skincare.dataset.chat import Example
from skincare.evaluation import metrics
from skincare.evaluation.metrics import Scores
from skincare.evaluation.product_metrics import document_score
from skincare.inference.classifier import Classifier
from skincare.inference.decoders import Decoder
from skincare.inference.predictions import Prediction
from skincare.inference.product_answers import scored_predictions
from skincare.labels import Labels
from skincare.modeling.settings import HeadUse
from skincare.prompts import target_of
from skincare.tables import HistoryRow, ProductHistoryRow
from skincare.training.checkpoints import Progress
from skincare.training.distributed import World
from skincare.training.step_records import NonFiniteError, loss_rows, name_images, write_report


@dataclass(frozen=True)
class Evaluation:
    """Mean loss, scores and predictions on val.

    document_anls: mean ANLS* of whole structured answers; None where the answers are categories.
    """

    loss: float
    scores: Scores
    predictions: list[Prediction]
    document_anls: float | None = None

    @property
    def criterion(self) -> float:
        """Return what selects the best epoch: the accuracy of categories, the ANLS* of structured answers."""
        return self.scores.accuracy if self.document_anls is None else self.document_anls


@dataclass(frozen=True)
class EpochResult:
    """The results of an epoch on val."""

    row: HistoryRow
    scores: Scores
    predictions: list[Prediction]
    is_best: bool


def evaluate(
    classifier: Classifier, head_use: HeadUse, examples: Sequence[Example], decoder: Decoder, world: World, report: Path
) -> Evaluation:
    """Return loss, scores and predictions on the examples, shared among the processes.

    Raises NonFiniteError for a loss that is NaN or infinite, after writing the images and their losses to `report`.
    """
    local = world.local_items(examples)
    with world.gathered(classifier.network):
        total = classifier.total_loss(head_use, local)
        # One by one, so that the images at fault are found.
        rows = [] if math.isfinite(total) else loss_rows(local, [classifier.total_loss(head_use, [x]) for x in local])
        predicted = classifier.predict(local, "val", decoder, show_progress=False)
    loss, predictions = world.sum_scalar(total) / len(examples), world.gather(predicted)
    if not math.isfinite(loss):
        rows = world.gather(rows)
        if world.is_writer:
            write_report(report, rows, loss=loss)
        raise NonFiniteError(
            f"The loss on val is not finite{name_images(rows)}. Its images are in {report}; the last checkpoint is "
            "kept. Use a lower learning rate, or remove the images."
        )
    scores = metrics.score(predictions, classifier.labels)
    return Evaluation(loss, scores, predictions, document_anls(examples, predictions, classifier.labels))


def document_anls(
    examples: Sequence[Example], predictions: Sequence[Prediction], labels: Labels
) -> float | None:  # fmt: skip
    """Return the mean ANLS* of whole structured answers; None where the answers are categories."""
    if target_of(labels) == "category":
        return None
    return fmean(document_score(one) for one in scored_predictions(examples, predictions))


def history_row(progress: Progress, evaluation: Evaluation, learning_rate: float) -> HistoryRow:
    """Return the row of the epoch that the progress has just completed."""
    n_steps, scores = progress.step_in_epoch, evaluation.scores
    row = HistoryRow(
        epoch=progress.epoch,
        step=progress.step,
        learning_rate=learning_rate,
        train_loss=progress.loss_sum / n_steps if n_steps else None,
        grad_norm=progress.grad_norm_sum / n_steps if n_steps else None,
        val_loss=evaluation.loss,
        val_accuracy=scores.accuracy,
        val_precision=scores.precision_weighted,
        val_recall=scores.recall_weighted,
        val_f1=scores.f1_weighted,
        val_macro_f1=scores.f1_macro,
        val_coverage=scores.coverage,
        seconds=round(progress.epoch_seconds, 2),
    )
    if evaluation.document_anls is None:
        return row
    return ProductHistoryRow(**vars(row), val_document_anls=evaluation.document_anls)
