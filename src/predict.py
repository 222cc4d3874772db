"""Predict the category of an image, or of every image in a folder.

By the text on the pack (--by reader: OCR and the reader, no training, no torch), by a fine-tuned model (model), or
by both (fused, after fuse.py). By default a fine-tuned model answers where there is one, fused with the reader where
that was fitted, and the reader alone where there is none.

In: an image or a folder; for a model its folder or hub name.
Out: a table on standard output; with --csv a CSV file. A file that is no image is a row with the reason; an image that
has a confidence below the threshold is Unknown, status abstained, no_text or other_script.
Command: python src/predict.py IMAGE|FOLDER [--csv answers.csv] [--min-confidence 0.9]
Time: the reader starts in 2 s and takes about a second an image on one core.
"""

import sys
from collections import Counter
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import tyro

from skincare import file_formats, stage
from skincare.errors import MissingInputError
from skincare.files import check_writable, write_text
from skincare.inference.image_predictions import OUTCOMES, ImagePrediction, InputImage, input_image
from skincare.inference.image_predictor import ImagePredictor, PredictorName, PredictorSettings, Target, load_predictor
from skincare.inference.prediction_files import json_line, to_csv, to_table
from skincare.modeling.settings import DecoderName, Dtype
from skincare.paths import Layout
from skincare.runlog import Summary
from skincare.text_reading.ocr import EngineName


@dataclass(frozen=True, kw_only=True)
class Config(stage.StageConfig):
    """The command line of the stage."""

    resumes: ClassVar[bool] = False

    images: Annotated[Path, tyro.conf.Positional]
    """An image, or a folder that is searched with all its subfolders."""
    target: Target = "category"
    """category: the label; product: a structured answer as one JSON line per image, read off the pack by rules."""
    by: Annotated[PredictorName | Literal["text"], tyro.conf.arg(aliases=("--predictor",))] = "auto"
    """reader (or text): the pack's text; model: a fine-tuned model; fused: both, as fuse.py weighs them; auto: the
    model if there is one, or is named, fused where that was fitted, else the reader."""
    model: str = ""
    """A model folder or hub name; the newest run in models/finetuned/ if left out."""
    csv: Path | None = None
    """Write a CSV file instead of a table on standard output."""
    min_confidence: float | None = None
    """Answer Unknown, status abstained, where the category is less probable than this; the reader's own threshold
    (0.6: 96 % of its answers should be right) if left out. Of a model it needs the decoder rank or head."""
    ocr: EngineName = "rapidocr"
    """The OCR engine, for the reader and fused, and for models that learnt with the pack's text as a hint."""
    decoder: DecoderName | None = None
    """How a model answers; the classification head if left out and the model has one, or else free text (rank with
    --min-confidence)."""
    temperature: float | None = None
    """Softens a model's probabilities if above 1; the one in the run's confidence.json if left out."""
    dtype: Dtype = "auto"
    """Dtype of a model's weights; auto: as they were saved."""
    batch_size: int = 16
    """Images per forward pass of a model."""
    max_error: float | None = None
    """Accepted error rate: abstain below the threshold that the run's confidence.json has for it; if left out, 0.1 or
    the next larger one that it has."""
    top_k: int = 3
    """How many labels to list with their probabilities."""

    @property
    def settings(self) -> PredictorSettings:
        """Return the settings of the predictor."""
        values: dict[str, Any] = {field.name: getattr(self, field.name) for field in fields(PredictorSettings)}
        return PredictorSettings(**{**values, "by": "reader" if self.by == "text" else self.by})


def run(config: Config, layout: Layout) -> Summary:
    """Predict every image, in the order of their paths."""
    files = _files(config.images)
    if config.csv:
        check_writable(config.csv)
    predictor = load_predictor(config.settings, layout)
    rows = predictor.predict([_image(file) for file in files])
    if config.csv:
        write_text(config.csv, to_csv(rows))
    elif config.target == "product":
        sys.stdout.write("".join(json_line(row).decode() for row in rows))
    else:
        sys.stdout.write(to_table(rows))
    return _summary(rows, predictor)


def _image(file: Path) -> InputImage:
    try:
        return input_image(str(file), file.read_bytes())
    except OSError as error:
        return InputImage(str(file), None, f"unreadable_file: {error.strerror}")


def _summary(rows: list[ImagePrediction], predictor: ImagePredictor) -> Summary:
    counts = Counter(row.outcome for row in rows)
    shown = {str(name): counts[name] for name in OUTCOMES}
    return Summary(
        headline=f"{len(rows)} images read = " + " + ".join(f"{n} {name}" for name, n in shown.items()),
        counts=shown,
        results={"predictor": predictor.name},
    )


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


def main() -> None:
    """Run the stage from the command line."""
    stage.main("predict", Config, run)


if __name__ == "__main__":
    main()
