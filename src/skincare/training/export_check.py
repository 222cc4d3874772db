"""Evaluation of the exported model on val, for comparison with the value that selected the epoch.

They may differ: tensors are rounded when they are written or loaded in fewer bits, and LoRA trained over quantised
weights is merged into unquantised ones.
"""

import logging
from collections.abc import Sequence
from typing import Any

import torch

from skincare.evaluation import metrics
from skincare.inference.classifier import Classifier
from skincare.inference.predictions import Prediction
from skincare.modeling.cached_vlm import CachedVLM
from skincare.training.epoch_results import document_anls
from skincare.training.loop import Trainer
from skincare.training.model_export import ExportStatistics

logger = logging.getLogger(__name__)


def evaluate_export(
    trainer: Trainer, export: ExportStatistics, exported: Classifier, in_training: Sequence[Prediction] = ()
) -> dict[str, Any]:
    """Return loss and accuracy on val in training, of the exported model, and of it rounded to the checkpoint's dtype.

    `in_training` holds the selected epoch's predictions, if available, to count changed answers. The exported model is
    rounded in place.
    """
    progress = trainer.progress
    rows: dict[str, dict[str, Any]] = {
        "in training": {
            "loss": progress.best_loss,
            "accuracy": progress.best_accuracy,
            "n_other_answers": 0,
            **_document(progress.best_document_anls),
        },
        "exported": _evaluate_on_val(trainer, exported, in_training),
    }
    if export.is_fp32 and export.checkpoint_dtype != torch.float32:
        # A new object: cached vision features and the cached prompt prefix are those of the unrounded weights.
        model = exported.network.model.to(export.checkpoint_dtype)
        model.config.dtype = export.checkpoint_dtype
        network = CachedVLM(model, n_uncached_blocks=1)
        network.head = exported.network.head
        rounded = Classifier(network, exported.encoder, exported.features.files)
        rows["rounded"] = _evaluate_on_val(trainer, rounded, in_training)
    for name, row in rows.items():
        logger.info("val, %s: loss %.4f, accuracy %.1f %%", name, row["loss"], 100 * row["accuracy"])
    return {
        "checkpoint_dtype": str(export.checkpoint_dtype).removeprefix("torch."),
        "is_fp32": export.is_fp32,
        "n_weights": export.n_weights,
        "n_changed": export.n_changed,
        "n_changed_rounded": export.n_changed_rounded,
        "n_val": len(trainer.val),
        "val": rows,
    }


def _evaluate_on_val(trainer: Trainer, classifier: Classifier, in_training: Sequence[Prediction]) -> dict[str, Any]:
    loss = classifier.total_loss(trainer.recipe.head, trainer.val) / len(trainer.val)
    decoder = classifier.decoder(trainer.decoder_name)
    predicted = classifier.predict(trainer.val, "val", decoder, show_progress=False)
    accuracy = metrics.score(predicted, trainer.spec.data.labels).accuracy
    before = {one.image_id: one.text for one in in_training}
    other = sum(one.text != before[one.image_id] for one in predicted) if before else None
    document = document_anls(trainer.val, predicted, trainer.spec.data.labels)
    return {"loss": loss, "accuracy": accuracy, "n_other_answers": other, **_document(document)}


def _document(anls: float | None) -> dict[str, float]:
    return {} if anls is None else {"document_anls": anls}
