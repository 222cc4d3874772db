"""Reads the batches that `skincare.evaluation.drift` compares: rows of predict.py, or a run's predictions on val."""

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from skincare.cleaning import inspection
from skincare.cleaning.inspection import Broken
from skincare.errors import MissingInputError
from skincare.evaluation.calibration import apply_temperature, as_arrays
from skincare.evaluation.drift import Batch, Floats
from skincare.inference import run_confidence
from skincare.inference.image_predictions import OUTCOMES
from skincare.inference.predictions import read_jsonl
from skincare.inference.product_answers import answer_of_text
from skincare.inference.structured_answers import with_label
from skincare.labels import labels_of, labels_of_model
from skincare.paths import Layout
from skincare.product.schema import Product
from skincare.prompts import target_of

_REMEDY = "Make it with `python src/predict.py IMAGES --out FILE.jsonl`."


def read_batch(path: Path, root: Path, n_images: int) -> Batch:
    """Return the batch of a file of predict.py. n_images: how many images are measured, if they are at hand.

    Raises MissingInputError for an absent file and for a line that is no prediction.
    """
    if not path.is_file():
        raise MissingInputError("predictions", path, _REMEDY)
    files, outcomes, labels, confidence = [], [], [], []
    with path.open(encoding="utf-8", errors="replace") as opened:
        for number, line in enumerate(opened, start=1):
            row = _row(line)
            if row is None:
                raise MissingInputError("prediction", f"{path}, line {number}", _REMEDY)
            files.append(row["file"])
            outcomes.append(row["outcome"])
            if row["label"]:
                labels.append(row["label"])
            if row["probability"] is not None:
                confidence.append(row["probability"])
    return Batch(
        n=len(files), n_abstained=outcomes.count("abstained"), n_unreadable=outcomes.count("failed"), labels=labels,
        confidence=np.array(confidence), metrics=quality_metrics([_local(file, root) for file in files], n_images),
    )  # fmt: skip


def read_val(path: Path, model: Path, layout: Layout, n_images: int) -> Batch:
    """Return the batch of a run's ranked predictions on val, with the run's temperature and threshold."""
    labels = labels_of_model(model, labels_of(layout))
    if target_of(labels) == "product":
        return _read_structured_val(path.with_name("val_predictions.jsonl"), model, layout, n_images)
    ranked = sorted(read_jsonl(path, labels), key=lambda one: one.image_id)
    chosen = run_confidence.choose(layout, model, None, None, None, None)
    table = apply_temperature(as_arrays(ranked, labels)[0], chosen.temperature)
    confidence = np.exp(table.max(axis=1))
    return Batch(
        n=len(ranked), n_abstained=int((confidence < (chosen.threshold or 0.0)).sum()), n_unreadable=0,
        labels=[labels.names[int(i)] for i in table.argmax(axis=1)], confidence=confidence,
        metrics=quality_metrics([layout.root / one.file for one in ranked], n_images),
        weight=len({one.product_id for one in ranked}) / len(ranked),
    )  # fmt: skip


def _read_structured_val(path: Path, model: Path, layout: Layout, n_images: int) -> Batch:
    """Return the batch of a run of structured answers, by the rules of predict.py.

    Categories below the run's threshold are left out, their calibrated confidences are not; an answer abstains if no
    field is kept.
    """
    known = labels_of_model(model, labels_of(layout))
    found = sorted(read_jsonl(path, known), key=lambda one: one.image_id)
    if not found:
        raise MissingInputError("structured answers on val", path, "Train again with `python src/finetune.py`.")
    policy = run_confidence.field_policy_of(layout, model, None, None, None)
    labels, confidence, n_abstained = [], [], 0
    for one in found:
        answer = answer_of_text(one.text, one.field_log_probabilities)
        product = with_label(answer.parsed.product or Product(), known)
        calibrated = policy.calibrated(product, answer.confidences)
        if "category" in calibrated:
            confidence.append(calibrated["category"])
        kept = policy.kept(product, calibrated)
        if one.category and kept.category:
            labels.append(one.category)
        n_abstained += kept == Product()
    return Batch(
        n=len(found), n_abstained=n_abstained, n_unreadable=0, labels=labels,
        confidence=np.array(confidence, np.float64),
        metrics=quality_metrics([layout.root / one.file for one in found], n_images),
        weight=len({one.product_id for one in found}) / len(found),
    )  # fmt: skip


def quality_metrics(paths: Sequence[Path], n_images: int) -> dict[str, Floats]:
    """Return the quality metrics of at most `n_images` evenly spread images; empty where none can be read."""
    step = max(1, len(paths) // n_images) if n_images else len(paths) + 1
    rows = []
    for path in paths[step - 1 :: step] if n_images else ():
        if not _is_file(path):
            continue
        found, _ = inspection.inspect_file(path)
        if not isinstance(found, Broken):
            rows.append((
                min(found.width, found.height), found.width / found.height, found.sharpness.content,
                found.tones.brightest, found.tones.darkest, found.tones.colour,
            ))  # fmt: skip
    names = ("shorter side, px", "aspect ratio", "sharpness", "brightest tone", "darkest tone", "colour")
    values = np.array(rows, dtype=np.float64).reshape(-1, len(names))
    return {name: values[:, i] for i, name in enumerate(names)} if rows else {}


def _local(file: str, root: Path) -> Path:
    """Return the path of a row's file, relative to the working directory as predict.py took it, or to the root."""
    return Path(file) if _is_file(Path(file)) else root / file


def _is_file(path: Path) -> bool:
    # Unlike Path.is_file, it takes URLs and names that are too long.
    return os.path.isfile(path)  # noqa: PTH113


def _row(line: str) -> dict[str, Any] | None:
    """Return file, outcome, likeliest label and probability of a JSON line; None if it is no prediction."""
    try:
        row = json.loads(line)
        label = row["top"][0]["label"] if row["top"] else row["category"]
        probability = None if row["probability"] is None else float(row["probability"])
        is_valid = isinstance(row["file"], str) and row["outcome"] in OUTCOMES
        is_valid = is_valid and isinstance(label, str | None) and (probability is None or 0 <= probability <= 1)
        found = {"file": row["file"], "outcome": row["outcome"], "label": label, "probability": probability}
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    return found if is_valid else None
