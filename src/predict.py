"""Predict the category of an image, or of every image in a folder.

By the text on the pack (--predictor text: OCR and the reader, no training, no torch), by a fine-tuned model (model), or
by both (fused, after fuse.py). By default a fine-tuned model answers where there is one, fused with the reader where
that was fitted, and the reader alone where there is none.

In: an image or a folder; for a model its folder or hub name.
Out: a table on standard output; with --csv a CSV file. A file that is no image is a row with the reason; an image that
has a confidence below the threshold is Unknown, status abstained, no_text or other_script.
Command: python src/predict.py IMAGE|FOLDER [--csv answers.csv] [--min-confidence 0.9]
Time: the reader starts in 2 s and takes about a second an image on one core.
"""

import json
import logging
import math
import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar, Final, Literal

import tyro

from skincare import file_formats, stage
from skincare.errors import MissingInputError, StageError
from skincare.files import check_writable, write_text
from skincare.inference.image_predictions import ImagePrediction, Predictor, abstain_below, to_csv, to_table
from skincare.labels import UNKNOWN, check_same_labels, labels_of, labels_of_model
from skincare.modeling.settings import DecoderName, Dtype
from skincare.paths import TINY_MODEL, Layout
from skincare.runlog import Summary
from skincare.text_reading.ocr import EngineName

logger = logging.getLogger(__name__)

PredictorName = Literal["auto", "text", "model", "fused"]
Target = Literal["category", "product"]
# The decoders that give probabilities.
_WITH_PROBABILITIES: Final[tuple[DecoderName, ...]] = ("rank", "head")


@dataclass(frozen=True, kw_only=True)
class Config(stage.StageConfig):
    """The command line of the stage."""

    resumes: ClassVar[bool] = False

    images: Annotated[Path, tyro.conf.Positional]
    """An image, or a folder that is searched with all its subfolders."""
    target: Target = "category"
    """category: the label; product: a structured answer as one JSON line per image, read off the pack by rules."""
    predictor: PredictorName = "auto"
    """text: the pack's text; model: a fine-tuned model; fused: both, as fuse.py weighs them; auto: the model if there
    is one, or is named, fused where that was fitted, else the text."""
    model: str = ""
    """A model folder or hub name; the newest run in models/finetuned/ if left out."""
    csv: Path | None = None
    """Write a CSV file instead of a table on standard output."""
    min_confidence: float | None = None
    """Answer Unknown, status abstained, where the category is less probable than this; the reader's own threshold
    (0.6: 96 % of its answers should be right) if left out. Of a model it needs the decoder rank or head."""
    ocr: EngineName = "rapidocr"
    """The OCR engine, for the predictors text and fused, and for models that learnt with the pack's text as a hint."""
    decoder: DecoderName | None = None
    """How a model answers; the classification head if left out and the model has one, or else free text (rank with
    --min-confidence)."""
    temperature: float = 1.0
    """Softens a model's probabilities if above 1; thresholds in a run's confidence.json hold with the one there."""
    dtype: Dtype = "auto"
    """Dtype of a model's weights; auto: as they were saved."""
    batch_size: int = 16
    """Images per forward pass of a model."""


def run(config: Config, layout: Layout) -> Summary:
    """Predict every image, in the order of their paths."""
    _check(config)
    files = _files(config.images)
    if config.target == "product":
        return _predict_products(config, layout, files)
    if config.csv:
        check_writable(config.csv)
    predictor = _predictor(config, layout)
    rows = [abstain_below(row, config.min_confidence) for row in predictor(files)]
    if config.csv:
        write_text(config.csv, to_csv(rows))
    else:
        sys.stdout.write(to_table(rows))
    return _summary(rows, predictor)


def _predict_products(config: Config, layout: Layout, files: list[Path]) -> Summary:
    from skincare.inference.product_predictor import ProductPredictor, product_reader
    from skincare.text_reading.extraction import PackReader
    from skincare.text_reading.reader_store import stored_reader

    reader, packs = stored_reader(layout, threshold=config.min_confidence), PackReader(config.ocr, layout.ocr_cache)
    predictor = ProductPredictor(reader, product_reader(layout, labels_of(layout)), packs)
    found = predictor(files)
    for one in found:
        sys.stdout.write(one.to_json() + "\n")
    counts = Counter(one.status for one in found)
    return Summary(
        headline=f"{len(found) - counts['unreadable']} of {len(found)} images read",
        counts=dict(sorted(counts.items())),
        results={"predictor": predictor.name},
    )


def _summary(rows: list[ImagePrediction], predictor: Predictor) -> Summary:
    counts = Counter("named" if row.category != UNKNOWN else row.status for row in rows)
    without = ("abstained", "no_text", "other_script", "unreadable")
    shown = {"named": counts["named"], **{status: counts[status] for status in without}}
    shown["unnamed"] = len(rows) - sum(shown.values())
    rest = ", ".join(f"{n} {name}" for name, n in shown.items() if n and name != "named")
    return Summary(
        headline=f"{shown['named']} of {len(rows)} images named{', ' if rest else ''}{rest}",
        counts=shown,
        results={"predictor": predictor.name},
    )


def _predictor(config: Config, layout: Layout) -> Predictor:
    """Return what predicts; only a model's imports torch."""
    from skincare.text_reading.extraction import PackReader

    if _is_by_text(config, layout):
        from skincare.inference.text_predictor import TextPredictor
        from skincare.text_reading.reader_store import stored_reader

        threshold = 0.0 if config.min_confidence is not None else None
        return TextPredictor(stored_reader(layout, threshold=threshold), PackReader(config.ocr, layout.ocr_cache))
    from skincare.inference.classifier import Classifier
    from skincare.inference.fused_predictor import FusedPredictor
    from skincare.inference.model_predictor import ModelPredictor

    source = config.model or str(_newest_model(layout))
    if config.labels:
        check_same_labels(Path(source), labels_of(layout))
    labels = labels_of_model(Path(source), labels_of(layout))
    if is_drawings_only(Path(source)):
        logger.warning("%s has the embedded stand-in's size: it knows drawings of packs, not photos", source)
    classifier = Classifier.load(
        source, labels, layout.root, dtype=config.dtype, n_uncached_blocks=0, batch_size=config.batch_size
    )  # fmt: skip
    if _is_fused(config, Path(source)):
        return FusedPredictor(classifier, PackReader(config.ocr, layout.ocr_cache))
    return ModelPredictor(
        classifier, config.decoder, config.temperature, needs_probabilities=config.min_confidence is not None,
        packs=PackReader(config.ocr, layout.ocr_cache) if classifier.hint_settings.kind == "text" else None,
    )  # fmt: skip


def _is_fused(config: Config, source: Path) -> bool:
    """Return whether model and reader are fused; --decoder and --temperature are options of the model alone."""
    if config.predictor != "auto":
        return config.predictor == "fused"
    from skincare.evaluation import fusion  # scipy's optimizers would slow the reader's start

    return config.decoder is None and config.temperature == 1 and (source / fusion.FILE).is_file()


def _is_by_text(config: Config, layout: Layout) -> bool:
    if config.predictor != "auto":
        return config.predictor == "text"
    if config.model or config.decoder:
        return False
    found = _newest_model(layout, is_needed=False)
    if found and is_drawings_only(found):
        logger.info("%s knows drawings of packs only; the reader predicts (--predictor model uses it)", found)
        return True
    return found is None


def is_drawings_only(source: Path) -> bool:
    """Return whether a model folder holds the embedded stand-in or a model trained from it."""
    try:
        widths = [json.loads((one / "config.json").read_text())["text_config"] for one in (source, TINY_MODEL)]
        return bool(widths[0]["hidden_size"] == widths[1]["hidden_size"])
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _check(config: Config) -> None:
    """Raise StageError for numbers out of range and for options that contradict each other."""
    if not 0 < config.temperature < math.inf:
        raise StageError(f"--temperature {config.temperature:g} is not a number above 0")
    if config.batch_size < 1:
        raise StageError(f"--batch-size {config.batch_size} is below 1")
    if config.target == "product" and (config.csv or config.model or config.predictor not in ("auto", "text")):
        raise StageError("--target product reads the pack and writes JSON lines: leave out --csv and the model")
    if config.predictor == "text" and (config.model or config.decoder):
        raise StageError("--predictor text uses no model: leave --model and --decoder out")
    if config.predictor == "fused" and (config.decoder or config.temperature != 1):
        raise StageError("--predictor fused has a decoder and a temperature of its own: leave those out")
    if config.min_confidence is None:
        return
    if not 0 <= config.min_confidence <= 1:
        raise StageError(f"--min-confidence {config.min_confidence:g} is not a probability between 0 and 1")
    if config.decoder not in (None, *_WITH_PROBABILITIES):
        names = " or ".join(_WITH_PROBABILITIES)
        raise StageError(f"--min-confidence: the decoder {config.decoder} gives no probabilities; name {names}")


def _files(path: Path) -> list[Path]:
    if path.is_dir():
        found = sorted(
            file for file in path.rglob("*") if file.suffix.lower() in file_formats.SUFFIXES and file.is_file()
        )
        if found:
            return found
    elif path.is_file():
        return [path]
    raise MissingInputError("image", path, "Name an image, or a folder with images.")


def _newest_model(layout: Layout, *, is_needed: bool = True) -> Path | None:
    models = list(layout.finetuned_model("").glob("*/config.json"))
    if models:
        return max(models, key=lambda config: config.stat().st_mtime).parent
    if is_needed:
        folder = layout.finetuned_model("")
        raise MissingInputError(
            "fine-tuned model",
            folder,
            "Make one with `python src/finetune.py`, name a --model or take --predictor text.",
        )
    return None


def main() -> None:
    """Run the stage from the command line."""
    stage.main("predict", Config, run)


if __name__ == "__main__":
    main()
