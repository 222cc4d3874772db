"""Name the category of any picture, or of every picture in a folder.

In: a picture or a folder, a model folder or a hub name.
Out: a table on standard output; with --csv a CSV file. A picture that cannot be read is a row with the reason.
Command: python src/predict.py PICTURE|FOLDER [--csv answers.csv]
Time: about 25 pictures a second with the embedded tiny model on two cores.
"""

import csv
import io
import sys
from collections.abc import Iterator, Sequence
from dataclasses import astuple, dataclass, fields
from pathlib import Path
from typing import Annotated

import tyro
from tqdm import tqdm

from skincare import answers, images, stage
from skincare.batches import PromptEncoder
from skincare.categories import UNKNOWN
from skincare.decoders import Decoder, DecoderName, make_decoder
from skincare.errors import MissingInputError
from skincare.files import write_text
from skincare.model import default_device, load_model, load_processor
from skincare.paths import Layout
from skincare.recogniser import Recogniser
from skincare.runlog import Summary
from skincare.tables import for_spreadsheet

_SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".avif", ".gif", ".bmp", ".tif", ".tiff"}


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
    """How answers are got; free text if left out, or the classification head where the model has one."""
    batch_size: int = 16
    """Pictures per forward pass."""


@dataclass(frozen=True)
class Row:
    """What is known about one picture."""

    file: str
    category: str
    status: str
    answer: str


def run(config: Config, layout: Layout) -> Summary:
    """Answer for every picture, in the order of their paths."""
    files = _files(config.pictures)
    source = config.model or str(_newest_model(layout))
    encoder = PromptEncoder(load_processor(source))
    recogniser = Recogniser(load_model(source, default_device()).requires_grad_(False))
    recogniser.load_head(Path(source))
    decoder = make_decoder(config.decoder or ("generate" if recogniser.head is None else "head"), recogniser, encoder)
    rows: list[Row] = []
    with tqdm(total=len(files), unit="picture", disable=None) as bar:
        for start in range(0, len(files), config.batch_size):
            rows += recognise(decoder, recogniser, encoder, files[start : start + config.batch_size])
            bar.update(len(rows) - bar.n)
    if config.csv:
        write_text(config.csv, _csv(rows))
    else:
        sys.stdout.write(_table(rows))
    n_named = sum(row.category != UNKNOWN for row in rows)
    n_broken = sum(row.status == "unreadable" for row in rows)
    return Summary(
        headline=f"{n_named} of {len(rows)} pictures named, {n_broken} unreadable",
        counts={"named": n_named, "unreadable": n_broken, "unnamed": len(rows) - n_named - n_broken},
        results={"model": source},
    )


def recognise(decoder: Decoder, recogniser: Recogniser, encoder: PromptEncoder, files: Sequence[Path]) -> list[Row]:
    """Return one row per file, in order."""
    rows: dict[Path, Row] = {}
    pixels = {}
    for file in files:
        try:
            pixels[file] = encoder.pixels(images.decode(file.read_bytes()))
        except (OSError, ValueError) as error:
            rows[file] = Row(str(file), UNKNOWN, "unreadable", str(error))
    if pixels:
        states = recogniser.picture_states(list(pixels.values()))
        found = decoder([one.grid for one in pixels.values()], states)
        for file, answer in zip(pixels, found, strict=True):
            parsed = answers.parse(answer.text, is_finished=answer.is_finished)
            rows[file] = Row(str(file), parsed.category or UNKNOWN, parsed.status, answer.text)
    return [rows[file] for file in files]


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
    writer.writerows([for_spreadsheet(cell) for cell in astuple(row)] for row in rows)
    return buffer.getvalue()


def _table(rows: Sequence[Row]) -> str:
    return "".join(f"{line}\n" for line in _lines(rows))


def _lines(rows: Sequence[Row]) -> Iterator[str]:
    width = max(len(row.file) for row in rows)
    yield f"{'file':{width}}  {'category':12}  {'status':10}  answer"
    for row in rows:
        # A model's words may hold line ends or terminal escapes; one picture is one harmless line.
        answer = "".join(letter if letter.isprintable() else " " for letter in row.answer)
        yield f"{row.file:{width}}  {row.category:12}  {row.status:10}  {answer}"


def main() -> None:
    """Run the stage from the command line."""
    stage.main("predict", Config, run)


if __name__ == "__main__":
    main()
