"""Val once more, on the exported folder: what a user of it gets may not be what the epoch was chosen by.

Tensors are rounded when they are written or loaded in fewer bits, and LoRA that has learnt over quantised weights is
added into others.
"""

import logging
from collections.abc import Sequence
from typing import Any

import torch

from skincare.evaluation import metrics
from skincare.inference import asking
from skincare.inference.decoders import make_decoder
from skincare.inference.evaluated import EvaluatedModel
from skincare.inference.predictions import Prediction
from skincare.modeling.recogniser import Recogniser
from skincare.modeling.vision_features import VisionFeatures
from skincare.training.loop import Trainer
from skincare.training.model_export import ExportStatistics

logger = logging.getLogger(__name__)


def evaluate_export(
    training: Trainer, export: ExportStatistics, exported: EvaluatedModel, in_training: Sequence[Prediction] = ()
) -> dict[str, Any]:
    """Return loss and accuracy on val in training, of the folder, and of its weights rounded to the checkpoint's dtype.

    `in_training` are the chosen epoch's answers, where they are at hand, with which the others are compared. Takes the
    exported model for itself: it is rounded afterwards.
    """
    progress = training.progress
    rows: dict[str, dict[str, Any]] = {
        "in training": {"loss": progress.best_loss, "accuracy": progress.best_accuracy, "n_other_answers": 0},
        "exported": _val(training, exported.recogniser, exported.images, in_training),
    }
    if export.is_fp32 and export.checkpoint_dtype != torch.float32:
        # Anew: what is kept of images and of the prompt was computed by the weights as they were.
        model = exported.recogniser.model.to(export.checkpoint_dtype)
        model.config.dtype = export.checkpoint_dtype
        rounded = Recogniser(model, n_live_blocks=1)
        rounded.head = exported.recogniser.head
        images = VisionFeatures(rounded, exported.encoder, exported.images.files)
        rows["rounded"] = _val(training, rounded, images, in_training)
    for name, row in rows.items():
        logger.info("val, %s: loss %.4f, accuracy %.1f %%", name, row["loss"], 100 * row["accuracy"])
    return {
        "checkpoint_dtype": str(export.checkpoint_dtype).removeprefix("torch."),
        "is_fp32": export.is_fp32,
        "n_weights": export.n_weights,
        "n_changed": export.n_changed,
        "n_changed_rounded": export.n_changed_rounded,
        "n_val": len(training.val),
        "val": rows,
    }


def _val(
    training: Trainer, recogniser: Recogniser, images: VisionFeatures, in_training: Sequence[Prediction]
) -> dict[str, Any]:
    decoder = make_decoder(training.decoder_name, recogniser, images.encoder)
    passes = asking.inference_passes(training.execution.eval_batch_size)
    loss = asking.total_loss(images, training.recipe.head, training.val, passes) / len(training.val)
    answered = asking.predict(images, decoder, training.val, "val", passes, show_progress=False)
    accuracy = metrics.score(answered).accuracy
    before = {one.image_id: one.text for one in in_training}
    other = sum(one.text != before[one.image_id] for one in answered) if before else None
    return {"loss": loss, "accuracy": accuracy, "n_other_answers": other}
