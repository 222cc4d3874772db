"""The data of the report, read from the files that the stages wrote; nothing is computed here."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

import numpy as np

from skincare import images, runlog, tables
from skincare.errors import MissingInputError, StageError
from skincare.evaluation import calibration, metrics
from skincare.evaluation.field_policy import FILE as FIELD_CONFIDENCE
from skincare.evaluation.metrics import Scores
from skincare.html_pages import jpeg_data_uri
from skincare.inference import predictions
from skincare.inference.predictions import Prediction
from skincare.labels import Labels, labels_of
from skincare.paths import TINY_MODEL, Layout
from skincare.prompts import Target
from skincare.tables import HistoryRow

STAGES: Final = (
    "scrape", "import_images", "clean", "build_dataset", "baselines", "zero_shot", "finetune", "fuse", "explain",
    "ablations", "product_facts", "score_products",
)  # fmt: skip
# In the gallery: at 6 kB each, far below 10 MB in total.
MAX_THUMBNAILS: Final = 600
_THUMBNAIL_SIDE_PX: Final = 160
# (minimum confidence, name), in falling order.
CONFIDENCE_BANDS: Final = (
    (0.9, "90 % or more"), (0.7, "70 to 90 %"), (0.5, "50 to 70 %"), (0.0, "under 50 %"),
)  # fmt: skip


@dataclass(frozen=True)
class TestImage:
    """One test image with its predictions before and after training; `thumbnail` is a data URI or empty.

    likeliest, confidence: the last model's most likely label and its probability; truth_probability: that of the true
    label. None without probabilities.
    """

    image_id: str
    truth: str
    before: Prediction | None
    after: Prediction | None
    thumbnail: str
    likeliest: str | None = None
    confidence: float | None = None
    truth_probability: float | None = None

    @property
    def last(self) -> Prediction:
        """Return the prediction after training if there is one, else the one before."""
        answer = self.after or self.before
        assert answer is not None
        return answer

    @property
    def is_correct(self) -> bool:
        """Return whether that prediction is the true category."""
        return self.last.category == self.truth

    @property
    def confidence_band(self) -> str:
        """Return the name of the band that contains the confidence; empty without confidence."""
        if self.confidence is None:
            return ""
        return next(name for low, name in CONFIDENCE_BANDS if self.confidence >= low)


@dataclass(frozen=True)
class ReportData:
    """The contents of the report; a stage that has not been run is absent from `stages`, and its fields are empty."""

    stages: Mapping[str, Mapping[str, Any]]
    before: Scores | None
    after: Scores | None
    comparison: Mapping[str, Any]
    confidence: Mapping[str, Any]
    history: list[HistoryRow]
    images: list[TestImage]
    plots: Mapping[str, Path]
    # "before training" or "after training" -> manifest.json of that run.
    manifests: Mapping[str, Mapping[str, Any]]
    labels: Labels
    # fusion.json of fuse.py: reader, model and both on the same test images; empty if it was not run.
    fusion: Mapping[str, Any] = field(default_factory=dict)
    # System -> the lines of log/products/<system>.jsonl, which score_products.py wrote.
    product_answers: Mapping[str, Sequence[Mapping[str, Any]]] = field(default_factory=dict)
    # field_confidence.json of the run: calibrators and thresholds of the fields of structured answers.
    field_confidence: Mapping[str, Any] = field(default_factory=dict)
    # Whether the images are those that the sample shop renders.
    is_sample_shop: bool = False

    @property
    def last(self) -> Scores:
        """Return the scores after training if there are any, else those before."""
        scores = self.after or self.before
        assert scores is not None
        return scores

    @property
    def target(self) -> Target:
        """Return what the model answers with."""
        return self.images[0].last.target if self.images else "category"

    @property
    def is_embedded_model(self) -> bool:
        """Return whether the embedded tiny model was evaluated, whose results say nothing about the real one."""
        models = {self.stages[name]["config"].get("model") for name in ("zero_shot", "finetune") if name in self.stages}
        return not models.isdisjoint({f"{TINY_MODEL.parent.name}/{TINY_MODEL.name}", str(TINY_MODEL)})


def gather(layout: Layout) -> ReportData:
    """Read all files; raises MissingInputError if neither zero_shot.py nor finetune.py was run."""
    stages = {name: _read_summary(layout.summary(name)) for name in STAGES if layout.summary(name).is_file()}
    if not {"zero_shot", "finetune"} & stages.keys():
        remedy = "Run `python src/zero_shot.py` or `python src/finetune.py` first, or `python src/run_all.py`."
        raise MissingInputError("results to report", layout.summary("zero_shot"), remedy)
    labels = labels_of(layout)
    before, first = _answers(stages, "zero_shot", layout.zero_shot / "metrics.json", layout.zero_shot, labels)
    log = layout.finetune_log(runlog.last_training_run(layout)) if "finetune" in stages else None
    after: Scores | None = None
    second: dict[str, Prediction] = {}
    comparison: Mapping[str, Any] = {}
    confidence: Mapping[str, Any] = {}
    history: list[HistoryRow] = []
    if log is not None:
        after, second = _answers(stages, "finetune", log / "test_metrics.json", log, labels, "test_predictions.jsonl")
        comparison = _read_json(log / "comparison.json") if (log / "comparison.json").is_file() else {}
        confidence = _read_json(log / "confidence.json") if (log / "confidence.json").is_file() else {}
        table: tables.Table[Any] = tables.PRODUCT_HISTORY if _is_product(second) else tables.HISTORY
        history = table.read(log / "history.csv")
    if after is not None and second.keys() != first.keys():
        # Predictions on another split, for example, cannot be compared.
        before, first, comparison = None, {}, {}
    images = _images(first, second, _probabilities(log, second, confidence, labels), layout)
    folders = {"before training": layout.zero_shot if before else None, "after training": log}
    manifests = {when: folder / "manifest.json" for when, folder in folders.items() if folder}
    return ReportData(
        stages, before, after, comparison, confidence, history, images, _plots(layout) | _overlays(stages, layout),
        {when: _read_json(path) for when, path in manifests.items() if path.is_file()},
        labels,
        _read_json(log / "fusion.json") if log and (log / "fusion.json").is_file() else {},
        product_answers=_product_answers(stages, layout),
        field_confidence=_read_json(log / FIELD_CONFIDENCE) if log and (log / FIELD_CONFIDENCE).is_file() else {},
        is_sample_shop=layout.shop_truth.is_file() and "import_images" not in stages,
    )  # fmt: skip


def _answers(
    stages: Mapping[str, Any], stage: str, scores: Path, folder: Path, labels: Labels, name: str = "predictions.jsonl"
) -> tuple[Scores | None, dict[str, Prediction]]:
    if stage not in stages:
        return None, {}
    answers = {one.image_id: one for one in predictions.read_jsonl(folder / name, labels)}
    try:
        return metrics.scores_from_json(_read_json(scores)), answers
    except StageError as error:
        raise StageError(f"{scores}: {error}") from error


def _is_product(found: Mapping[str, Prediction]) -> bool:
    return any(one.target == "product" for one in found.values())


def _probabilities(
    log: Path | None, predicted: Mapping[str, Prediction], confidence: Mapping[str, Any], labels: Labels
) -> dict[str, dict[str, float]]:
    """Return image id -> category -> probability, with the temperature that was fitted on val."""
    if log is None or not (log / "test_ranked.jsonl").is_file():
        return {}
    ranked = [one for one in predictions.read_jsonl(log / "test_ranked.jsonl", labels) if one.image_id in predicted]
    if not ranked:
        return {}
    # Sorted, as `as_arrays` sorts; the file has "1_2" before "1_10".
    ranked.sort(key=lambda one: one.image_id)
    table, _ = calibration.as_arrays(ranked, labels)
    table = np.exp(calibration.apply_temperature(table, confidence.get("temperature", 1.0)))
    return {
        one.image_id: dict(zip(labels.names, row.tolist(), strict=True)) for one, row in zip(ranked, table, strict=True)
    }


def _images(
    first: Mapping[str, Prediction], second: Mapping[str, Prediction],
    probabilities: Mapping[str, Mapping[str, float]], layout: Layout,
) -> list[TestImage]:  # fmt: skip
    """Return all test images, errors first, by falling confidence; the first MAX_THUMBNAILS have a thumbnail."""
    found = []
    for image_id, one in (second or first).items():
        chances = probabilities.get(image_id)
        likeliest = max(chances, key=chances.__getitem__) if chances else None
        found.append(
            TestImage(
                image_id, one.truth, first.get(image_id), second.get(image_id), "", likeliest,
                chances[likeliest] if chances and likeliest else None, chances[one.truth] if chances else None,
            )
        )  # fmt: skip
    found.sort(key=lambda one: (one.is_correct, -(one.confidence or 0.0), tables.natural_key(one.image_id)))
    shown = [replace(one, thumbnail=_thumbnail(layout, one.last.file)) for one in found[:MAX_THUMBNAILS]]
    return shown + found[MAX_THUMBNAILS:]


def _thumbnail(layout: Layout, file: str) -> str:
    """Return a small JPEG as a data URI; empty if the image cannot be read."""
    path = (layout.root / file).resolve()
    if not path.is_relative_to(layout.root):
        return ""
    try:
        image = images.decode(path.read_bytes())
    except (OSError, images.BrokenImageError):
        return ""
    image.thumbnail((_THUMBNAIL_SIDE_PX, _THUMBNAIL_SIDE_PX))
    return jpeg_data_uri(image, quality=80)


def _plots(layout: Layout) -> dict[str, Path]:
    names = ("blur_histogram", "dataset_split", "lr", "val_loss", "val_accuracy", "val_f1", "val_precision",
             "val_recall", "cm_before_training", "cm_after_training", "confidence", "product_coverage",
             "product_calibration", "val_document_anls")  # fmt: skip
    return {name: layout.plot(name) for name in names if layout.plot(name).is_file()}


def _overlays(stages: Mapping[str, Any], layout: Layout) -> dict[str, Path]:
    """Return the overlays that explain.py drew: image id -> saliency, <image id>/attention -> attention."""
    images = stages["explain"]["results"]["images"] if "explain" in stages else []
    image_ids = [one["image_id"] for one in images]
    paths = {one: layout.overlay(one) for one in image_ids}
    paths |= {f"{one}/attention": layout.attention_panels(one) for one in image_ids}
    return {name: path for name, path in paths.items() if path.is_file()}


def _product_answers(stages: Mapping[str, Any], layout: Layout) -> dict[str, list[Any]]:
    """Return the structured answers of each system that was scored."""
    names = stages["score_products"]["results"] if "score_products" in stages else {}
    files = {name: layout.product_answers(name) for name in names}
    return {name: _read_lines(path) for name, path in files.items() if path.is_file()}


def _read_lines(path: Path) -> list[Any]:
    try:
        return [json.loads(line) for line in path.read_bytes().split(b"\n") if line]
    except (OSError, ValueError, RecursionError) as error:
        raise StageError(f"{path}: not readable ({error}); run `python src/score_products.py` again") from error


def _read_summary(path: Path) -> dict[str, Any]:
    found = _read_json(path)
    if not all(isinstance(found.get(key), dict) for key in ("counts", "results", "config")):
        raise StageError(f"{path}: not the summary of a stage; run the stage again")
    return found


def _read_json(path: Path) -> dict[str, Any]:
    """Return the object of a JSON file; raises MissingInputError, or StageError for anything else."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(found, dict):
            raise ValueError("no JSON object")
    except FileNotFoundError:
        raise MissingInputError("results", path, "Run the stage that writes it again.") from None
    except (OSError, ValueError, RecursionError) as error:
        raise StageError(f"{path}: not readable ({error}); run the stage that writes it again") from error
    return found
