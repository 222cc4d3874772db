"""Name the category of any picture, or of every picture in a folder.

In: a picture or a folder, a model folder or a hub name.
Out: a table on standard output; with --csv a CSV file. A picture that cannot be read is a row with the reason.
Command: python src/predict.py PICTURE|FOLDER [--csv answers.csv] [--min-confidence 0.9]
Time: about 25 pictures a second with the embedded tiny model on two cores.
"""

import csv
import io
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Annotated, Final

import numpy as np
import tyro
from tqdm import tqdm

from skincare import images, stage
from skincare.answering import answers
from skincare.answering.decoders import Answer, Decoder, DecoderName, make_decoder
from skincare.categories import CATEGORIES, UNKNOWN
from skincare.errors import MissingInputError, StageError
from skincare.evaluation.calibration import with_temperature
from skincare.files import write_text
from skincare.modelling.batches import PromptEncoder
from skincare.modelling.model import default_device, load_model, load_processor
from skincare.modelling.recogniser import Recogniser
from skincare.paths import Layout
from skincare.runlog import Summary
from skincare.tables import for_spreadsheet

_SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".avif", ".gif", ".bmp", ".tif", ".tiff"}
# The decoders that say how sure they are.
_SURE: Final[tuple[DecoderName, ...]] = ("rank", "head")


@dataclass(frozen=True, kw_only=True)
class Config(stage.StageConfig):
    """What the stage can be told."""

    pictures: Annotated[Path, tyro.conf.Positional]
    """A picture, or a folder that is searched with all its subfolders."""
    model: str = ""
    """A model folder or hub name; the newest run in models/finetuned/ if left out."""
    csv: Path | None = None
    """Write a CSV file instead of a table on standard output."""
    decoder: DecoderName | None = None
    """How answers are got; the classification head if left out and the model has one, or else free text (rank with
    --min-confidence)."""
    min_confidence: float | None = None
    """Answer Unknown, status unsure, where the category is less probable than this; needs the decoder rank or head."""
    temperature: float = 1.0
    """Softens probabilities if above 1; the thresholds in a run's confidence.json hold with the temperature there."""
    batch_size: int = 16
    """Pictures per forward pass."""


@dataclass(frozen=True)
class Row:
    """What is known about one picture."""

    file: str
    category: str
    probability: float | None
    status: str
    answer: str

    def cells(self) -> list[str]:
        """Return the row as text; a picture whose decoder gives no probability has an empty cell."""
        probability = "" if self.probability is None else f"{self.probability:.4f}"
        return [self.file, self.category, probability, self.status, self.answer]


def run(config: Config, layout: Layout) -> Summary:
    """Answer for every picture, in the order of their paths."""
    _check(config)
    files = _files(config.pictures)
    source = config.model or str(_newest_model(layout))
    encoder = PromptEncoder(load_processor(source))
    recogniser = Recogniser(load_model(source, default_device()).requires_grad_(False))
    recogniser.load_head(Path(source))
    decoder = make_decoder(_decoder_name(config, recogniser), recogniser, encoder)
    rows: list[Row] = []
    with tqdm(total=len(files), unit="picture", disable=None) as bar:
        for start in range(0, len(files), config.batch_size):
            some = recognise(decoder, recogniser, encoder, files[start : start + config.batch_size], config.temperature)
            rows += [_if_sure(row, config.min_confidence) for row in some]
            bar.update(len(rows) - bar.n)
    if config.csv:
        write_text(config.csv, _csv(rows))
    else:
        sys.stdout.write(_table(rows))
    n_named = sum(row.category != UNKNOWN for row in rows)
    n_broken, n_unsure = (sum(row.status == status for row in rows) for status in ("unreadable", "unsure"))
    n_unnamed = len(rows) - n_named - n_broken - n_unsure
    return Summary(
        headline=f"{n_named} of {len(rows)} pictures named, {n_unsure} unsure, {n_broken} unreadable",
        counts={"named": n_named, "unreadable": n_broken, "unsure": n_unsure, "unnamed": n_unnamed},
        results={"model": source, "decoder": decoder.name},
    )


def recognise(
    decoder: Decoder, recogniser: Recogniser, encoder: PromptEncoder, files: Sequence[Path], temperature: float = 1.0
) -> list[Row]:
    """Return one row per file, in order."""
    rows: dict[Path, Row] = {}
    pixels = {}
    for file in files:
        try:
            pixels[file] = encoder.pixels(images.decode(file.read_bytes()))
        except (OSError, ValueError) as error:
            rows[file] = Row(str(file), UNKNOWN, None, "unreadable", str(error))
    if pixels:
        states = recogniser.picture_states(list(pixels.values()))
        found = decoder([one.grid for one in pixels.values()], states)
        for file, answer in zip(pixels, found, strict=True):
            parsed = answers.parse(answer.text, is_finished=answer.is_finished)
            probability = _probability(answer, parsed.category, temperature)
            rows[file] = Row(str(file), parsed.category or UNKNOWN, probability, parsed.status, answer.text)
    return [rows[file] for file in files]


def _check(config: Config) -> None:
    """Raise StageError for numbers that make no sense, and where --min-confidence has nothing to be compared with."""
    if not 0 < config.temperature < np.inf:
        raise StageError(f"--temperature {config.temperature:g} is no number above 0")
    if config.min_confidence is None:
        return
    if not 0 <= config.min_confidence <= 1:
        raise StageError(f"--min-confidence {config.min_confidence:g} is no probability between 0 and 1")
    if config.decoder not in (None, *_SURE):
        raise StageError(
            f"--min-confidence: the decoder {config.decoder} gives no probabilities; name {' or '.join(_SURE)}"
        )


def _decoder_name(config: Config, recogniser: Recogniser) -> DecoderName:
    if config.decoder is not None:
        return config.decoder
    if recogniser.head is not None:
        return "head"
    return "generate" if config.min_confidence is None else "rank"


def _probability(answer: Answer, category: str | None, temperature: float) -> float | None:
    if category is None or not answer.log_probabilities:
        return None
    scaled = with_temperature(np.array([answer.log_probabilities]), temperature)
    return float(np.exp(scaled[0, CATEGORIES.index(category)]))


def _if_sure(row: Row, min_confidence: float | None) -> Row:
    """Return the row, without its category where that is not probable enough; the answer stays to be read."""
    if min_confidence is None or row.probability is None or row.probability >= min_confidence:
        return row
    return replace(row, category=UNKNOWN, status="unsure")


def _files(path: Path) -> list[Path]:
    if path.is_dir():
        found = sorted(file for file in path.rglob("*") if file.suffix.lower() in _SUFFIXES and file.is_file())
        if found:
            return found
    elif path.is_file():
        return [path]
    raise MissingInputError("picture", path, "Name a picture, or a folder that holds some.")


def _newest_model(layout: Layout) -> Path:
    models = list(layout.finetuned_model("").glob("*/config.json"))
    if not models:
        raise MissingInputError(
            "fine-tuned model", layout.finetuned_model(""), "Make one with `python src/finetune.py` or name a --model."
        )
    return max(models, key=lambda config: config.stat().st_mtime).parent


def _csv(rows: Sequence[Row]) -> str:
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(field.name for field in fields(Row))
    # A model's words may be anything, also a formula.
    writer.writerows([for_spreadsheet(cell) for cell in row.cells()] for row in rows)
    return buffer.getvalue()


def _table(rows: Sequence[Row]) -> str:
    return "".join(f"{line}\n" for line in _lines(rows))


def _lines(rows: Sequence[Row]) -> Iterator[str]:
    width = max(len("file"), *(len(row.file) for row in rows))
    for cells in ([field.name for field in fields(Row)], *(row.cells() for row in rows)):
        # A model's words and a file's name may hold line ends or terminal escapes; one picture is one harmless line.
        file, category, probability, status, answer = (
            "".join(letter if letter.isprintable() else " " for letter in cell) for cell in cells
        )
        yield f"{file:{width}}  {category:12}  {probability:11}  {status:10}  {answer}"


def main() -> None:
    """Run the stage from the command line."""
    stage.main("predict", Config, run)


if __name__ == "__main__":
    main()
