"""Predict the category, or a structured answer, of any number of images.

By the text on the pack (--by reader: OCR and rules, no training, no torch), by a fine-tuned model (model), or by both
(fused, after fuse.py). By default: a fine-tuned model if there is one, fused with the reader if the fusion was
fitted, else the reader alone. docs/predict.md describes the rows.

In: images, folders, glob patterns and URLs; `-` or --from FILE for a list of paths and URLs, one per line.
Out: a table on standard output, or with --out a file of JSON lines or CSV, written while it runs; one row for each
input, in order, including unreadable ones. --resume continues a file.
Command: python src/predict.py photos/ [more.jpg ...] [--out answers.jsonl] [--resume] [--min-confidence 0.9]
Time: the reader starts in 2 s and takes about a second an image on one core.

Exit code 0: every input has a row; 1: failed; 2: an input or a model is missing; 130: interrupted.
"""

from collections import Counter
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, fields
from itertools import chain, islice
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import tyro
from tqdm import tqdm

from skincare import runlog, stage
from skincare.errors import MissingInputError, StageError
from skincare.files import check_writable
from skincare.inference import image_sources, prediction_files
from skincare.inference.image_predictions import OUTCOMES
from skincare.inference.image_predictor import PredictorName, PredictorSettings, load_predictor
from skincare.inference.prediction_files import FinishedRows, Format, PredictionWriter
from skincare.inference.prediction_stream import predict_all
from skincare.modeling.settings import DecoderName, Dtype
from skincare.paths import Layout
from skincare.prompts import Target
from skincare.runlog import Summary
from skincare.text_reading.ocr import EngineName

# The first column of a table is as wide as the longest of the first names, since names are read as a stream.
_N_ALIGNED: Final = 1000


@dataclass(frozen=True, kw_only=True)
class Config(stage.StageConfig):
    """Options of the stage."""

    images: Annotated[tuple[str, ...], tyro.conf.Positional] = ()
    """Images, folders (searched with all subfolders), glob patterns, URLs; - reads paths and URLs from standard
    input."""
    from_list: Annotated[tuple[Path, ...], tyro.conf.arg(name="from"), tyro.conf.UseAppendAction] = ()
    """A text file with one path or URL per line."""
    out: Path | None = None
    """Write JSON lines (.jsonl) or CSV (.csv) to this file instead of a table to standard output."""
    csv: Path | None = None
    """Write CSV to this file, whatever its suffix."""
    form: Annotated[Format | None, tyro.conf.arg(name="format")] = None
    """Format on standard output; table if left out, jsonl for products."""
    resume: bool = False
    """Keep the rows of --out and predict only the images that have none."""
    allow_private: bool = False
    """Fetch URLs from private and local addresses, too."""
    target: Target = "category"
    """category: the label; product: a structured answer, read off the pack by rules, --by model or --by fused."""
    by: Annotated[PredictorName | Literal["text"], tyro.conf.arg(aliases=("--predictor",))] = "auto"
    """reader (or text): the pack's text; model: a fine-tuned model; fused: both, with the weights of fuse.py; auto: the
    model if there is one, or is named, fused where that was fitted, else the reader."""
    model: str = ""
    """A model folder or hub name; the newest run in models/finetuned/ if left out."""
    min_confidence: float | None = None
    """Abstain (category Unknown) where the label is less probable than this. If left out: the reader's own threshold
    (0.6: 96 % of its answers should be right), and for a model that of --max-error. A model needs the decoder rank or
    head."""
    max_error: float | None = None
    """Accepted error rate: abstain below the threshold that the run's confidence.json has for it; if left out, 0.1 or
    the next larger one that it has."""
    top_k: int = 3
    """Number of labels to list with their probabilities."""
    ocr: EngineName = "rapidocr"
    """The OCR engine, for the reader and fused, and for models trained with the pack's text as a hint."""
    decoder: DecoderName | None = None
    """How a model answers. If left out: the classification head if it has one, else rank where the run has a
    confidence.json or with --min-confidence, else free text."""
    temperature: float | None = None
    """Temperature of a model's probabilities; that of the run's confidence.json if left out."""
    dtype: Dtype = "auto"
    """Dtype of a model's weights; auto: that of the checkpoint."""
    batch_size: int = 16
    """Images per forward pass of a model."""

    @property
    def settings(self) -> PredictorSettings:
        """Return the settings of the predictor."""
        values: dict[str, Any] = {field.name: getattr(self, field.name) for field in fields(PredictorSettings)}
        return PredictorSettings(**{**values, "by": "reader" if self.by == "text" else self.by})

    @property
    def file(self) -> Path | None:
        """Return the file to write, if any."""
        return self.out or self.csv

    @property
    def output_format(self) -> Format:
        """Return the format of the rows."""
        if self.out:
            return prediction_files.format_of(self.out)
        return "csv" if self.csv else self.form or ("jsonl" if self.target == "product" else "table")

    def check(self) -> None:
        """Raise StageError for options that contradict each other."""
        if self.out and self.csv:
            raise StageError("--out and --csv are mutually exclusive")
        if self.file and self.form:
            raise StageError("--format is that of standard output; the name of the file of --out decides its format")
        if self.resume and not self.file:
            raise StageError("--resume needs the file to continue: --out FILE")
        # Raises StageError for another suffix.
        form = self.output_format
        if self.target == "product" and form == "table":
            raise StageError("--target product has too many fields for a table: --format jsonl or csv, or --out FILE")

    def resume_hint(self, layout: Layout) -> str:
        """Return how to continue; rows on standard output cannot be continued."""
        del layout
        if not self.file:
            return f"start again with `{runlog.command()}`"
        return f"continue with `{runlog.command(add='--resume')}`"


def run(config: Config, layout: Layout) -> Summary:
    """Predict every image, in the order of the inputs."""
    config.check()
    settings = config.settings
    settings.check()
    sources, name_width = _sources(config)
    finished = FinishedRows()
    if config.file:
        check_writable(config.file)
        if config.resume:
            finished = prediction_files.finished_rows(config.file, config.output_format, config.target)
    predictor = load_predictor(settings, layout)
    counts: Counter[str] = Counter()
    n_kept = len(finished)
    with _writer(config, name_width) as writer, image_sources.ImageLoader(allow_private=config.allow_private) as loader:
        files = loader.load_all(_unfinished(sources, finished, counts))
        batches = predict_all(predictor, files, config.batch_size)
        bar = tqdm(unit="image", desc="predict", disable=None if config.file else True)
        with closing(batches), bar:
            for rows in batches:
                writer.write(rows)
                counts.update(row.outcome for row in rows)
                bar.update(len(rows))
    return _summary(counts, n_kept - len(finished), predictor.name)


def _sources(config: Config) -> tuple[Iterator[str], int]:
    """Return the names of all inputs and the length of the longest of the first ones."""
    image_sources.check_names(config.images)
    sources = image_sources.expand(config.images, config.from_list)
    # Standard input is read as a stream.
    first = list(islice(sources, 1 if image_sources.STDIN in config.images else _N_ALIGNED))
    if not first:
        given = ", ".join([*config.images, *map(str, config.from_list)]) or "no images were named"
        raise MissingInputError("image", given, "Name an image, a folder with images, or a list with --from FILE.")
    return chain(first, sources), max(len("file"), *map(len, first))


def _unfinished(sources: Iterator[str], finished: FinishedRows, counts: Counter[str]) -> Iterator[str]:
    """Yield the names without a row in the output file; count the outcomes of the others."""
    for source in sources:
        outcome = finished.take(source) if len(finished) else None
        if outcome is None:
            yield source
        else:
            counts[outcome] += 1


@contextmanager
def _writer(config: Config, name_width: int) -> Iterator[PredictionWriter]:
    if not config.file:
        yield PredictionWriter(None, config.output_format, name_width, target=config.target)
        return
    with config.file.open("ab" if config.resume else "wb") as file:
        yield PredictionWriter(file, config.output_format, is_new=not file.tell(), target=config.target)


def _summary(counts: Counter[str], n_kept: int, predictor: str) -> Summary:
    shown = {str(name): counts[name] for name in OUTCOMES}
    total = sum(shown.values())
    kept = f" ({n_kept} by an earlier run)" if n_kept else ""
    return Summary(
        headline=f"{total} images read{kept} = " + " + ".join(f"{n} {name}" for name, n in shown.items()),
        counts=shown,
        results={"predictor": predictor, "n_kept": n_kept},
    )


def main() -> None:
    """Run the stage from the command line."""
    stage.main("predict", Config, run)


if __name__ == "__main__":
    main()
