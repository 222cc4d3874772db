"""What the report shows, read from the files that the stages wrote; nothing is measured here."""

import base64
import io
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from skincare import images, metrics, predictions, tables
from skincare.errors import MissingInputError, StageError
from skincare.metrics import Scores
from skincare.paths import TINY_MODEL, Layout
from skincare.predictions import Prediction
from skincare.tables import HistoryRow

STAGES: Final = ("scrape", "clean", "build_dataset", "baselines", "zero_shot", "finetune")
# Of the gallery; at 6 kB each they stay far below 10 MB together.
MAX_THUMBNAILS: Final = 600
_THUMBNAIL_SIDE_PX: Final = 144


@dataclass(frozen=True)
class Answered:
    """One test picture with the answers before and after training; `thumbnail` is a data URI or empty."""

    image_id: str
    truth: str
    before: Prediction | None
    after: Prediction | None
    thumbnail: str

    @property
    def last(self) -> Prediction:
        """Return the answer that counts: after training where there is one."""
        answer = self.after or self.before
        assert answer is not None
        return answer


@dataclass(frozen=True)
class ReportData:
    """All that the report shows; a stage that has not been run is absent from `stages`, its fields are empty."""

    stages: Mapping[str, Mapping[str, Any]]
    before: Scores | None
    after: Scores | None
    comparison: Mapping[str, Any]
    confidence: Mapping[str, Any]
    history: list[HistoryRow]
    pictures: list[Answered]
    plots: Mapping[str, Path]

    @property
    def is_embedded_model(self) -> bool:
        """Tell whether the tiny stand-in model was asked: its results say nothing about the real one."""
        models = {self.stages[name]["config"].get("model") for name in ("zero_shot", "finetune") if name in self.stages}
        return not models.isdisjoint({f"{TINY_MODEL.parent.name}/{TINY_MODEL.name}", str(TINY_MODEL)})


def gather(layout: Layout) -> ReportData:
    """Read everything; raises MissingInputError when no stage that gives answers has been run."""
    stages = {name: _read_json(layout.summary(name)) for name in STAGES if layout.summary(name).is_file()}
    if not {"zero_shot", "finetune"} & stages.keys():
        remedy = "Run `python src/zero_shot.py` or `python src/finetune.py` first, or `python src/run_all.py`."
        raise MissingInputError("results to report", layout.summary("zero_shot"), remedy)
    before, first = _answers(stages, "zero_shot", layout.zero_shot / "metrics.json", layout.zero_shot)
    log = layout.finetune_log(stages["finetune"]["results"]["run"]) if "finetune" in stages else None
    after: Scores | None = None
    second: dict[str, Prediction] = {}
    comparison: Mapping[str, Any] = {}
    confidence: Mapping[str, Any] = {}
    history: list[HistoryRow] = []
    if log is not None:
        after, second = _answers(stages, "finetune", log / "test_metrics.json", log, "test_predictions.jsonl")
        comparison = _read_json(log / "comparison.json") if (log / "comparison.json").is_file() else {}
        confidence = _read_json(log / "confidence.json") if (log / "confidence.json").is_file() else {}
        history = tables.HISTORY.read(log / "history.csv")
    if after is not None and second.keys() != first.keys():
        # Asked on another split, say: answers about other pictures do not stand beside each other.
        before, first, comparison = None, {}, {}
    pictures = _pictures(first, second, layout)
    return ReportData(stages, before, after, comparison, confidence, history, pictures, _plots(layout))


def _answers(
    stages: Mapping[str, Any], stage: str, scores: Path, folder: Path, name: str = "predictions.jsonl"
) -> tuple[Scores | None, dict[str, Prediction]]:
    if stage not in stages:
        return None, {}
    answers = {one.image_id: one for one in predictions.read_jsonl(folder / name)}
    return metrics.scores_from_json(_read_json(scores)), answers


def _pictures(first: Mapping[str, Prediction], second: Mapping[str, Prediction], layout: Layout) -> list[Answered]:
    """Return all test pictures, mistakes first; only so many of them with a thumbnail."""
    known = second or first
    ordered = sorted(known.values(), key=lambda one: (one.category == one.truth, tables.natural_key(one.image_id)))
    return [
        Answered(
            one.image_id,
            one.truth,
            first.get(one.image_id),
            second.get(one.image_id),
            _thumbnail(layout, one.file) if i < MAX_THUMBNAILS else "",
        )
        for i, one in enumerate(ordered)
    ]


def _thumbnail(layout: Layout, file: str) -> str:
    """Return a small JPEG as a data URI; empty when the picture is gone, which is no reason to lose the report."""
    path = (layout.root / file).resolve()
    if not path.is_relative_to(layout.root):
        return ""
    try:
        image = images.decode(path.read_bytes())
    except (OSError, images.BrokenImageError):
        return ""
    image.thumbnail((_THUMBNAIL_SIDE_PX, _THUMBNAIL_SIDE_PX))
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=80)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()


def _plots(layout: Layout) -> dict[str, Path]:
    names = ("blur_histogram", "dataset_split", "lr", "val_loss", "val_accuracy", "val_f1", "val_precision",
             "val_recall", "cm_before_training", "cm_after_training", "confidence")  # fmt: skip
    return {name: layout.plot(name) for name in names if layout.plot(name).is_file()}


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise MissingInputError("results", path, "Run the stage that writes it again.") from None
    except (OSError, ValueError) as error:
        raise StageError(f"{path}: not readable ({error}); run the stage that writes it again") from error
