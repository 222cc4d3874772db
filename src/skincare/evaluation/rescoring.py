"""Scoring of stored predictions; the scores are written next to them."""

from collections.abc import Sequence
from pathlib import Path

from skincare.errors import StageError
from skincare.evaluation import comparison, merging, metrics
from skincare.evaluation.metrics import Scores
from skincare.files import write_json
from skincare.inference import predictions
from skincare.inference.predictions import Prediction
from skincare.labels import Labels, labels_of
from skincare.paths import Layout


def metrics_file(file: Path) -> Path:
    """Return the file of the scores of a file of predictions: `test_metrics.json` for `test_predictions.jsonl`."""
    name = file.stem.removesuffix("predictions").removesuffix("_")
    return file.with_name(f"{name}_metrics.json" if name else "metrics.json")


def rescore(file: Path, labels: Labels) -> tuple[list[Prediction], list[Prediction], Scores]:
    """Parse the stored outputs again and write predictions and scores; return old and new predictions and scores.

    Raises StageError for a file with two predictions of one image.
    """
    old = predictions.read_jsonl(file, labels)
    if len({one.image_id for one in old}) < len(old):
        raise StageError(f"{file}: two predictions of one image; score predictions of different decoders separately")
    new = [predictions.parsed(one, labels) for one in old]
    scores = metrics.score(new, labels)
    predictions.write_jsonl(file, new)
    write_json(metrics_file(file), metrics.to_json(scores))
    return old, new, scores


def rescore_merged(
    file: Path, predicted: Sequence[Prediction], groups: Sequence[merging.Group], labels: Labels
) -> Scores:
    """Write and return the scores with merged categories, next to the plain ones."""
    scores = metrics.score(predicted, labels, merged=groups)
    plain = metrics_file(file)
    write_json(plain.with_name(f"{plain.stem}_merged.json"), metrics.to_json(scores))
    return scores


def compare_with_zero_shot(layout: Layout, folder: Path, predicted: Sequence[Prediction]) -> None:
    """Write folder/comparison.json if the untrained model was evaluated on the same images."""
    before = layout.zero_shot / "predictions.jsonl"
    if not before.is_file():
        return
    zero_shot = predictions.read_jsonl(before, labels_of(layout))
    if comparison.have_same_images(zero_shot, predicted):
        write_json(folder / "comparison.json", metrics.to_json(comparison.compare(zero_shot, predicted)))
