"""Accuracy of OCR and the reader on labelled photos of real packs. The labels are used for scoring only.

`--photos` is a CSV with the columns file (relative to the CSV), category and product_key, or the folder that contains
it. Results are grouped by the columns kind, and shop or repo (if absent, the part of product_key before `::`). The
reader is that of `predict.py` in two variants: the phrase table alone, as in a fresh clone, and fitted on the names of
a catalogue (--catalogue; default csv_data/skincare_products_clean.csv, else a file of that name next to the CSV).

accuracy    share of photos whose most probable category is correct; without evidence that is Moisturiser, by the
            prior. accuracy_no_text_is_wrong counts photos without text as wrong
answered    photos on which the reader does not abstain (predict.py outputs Unknown for the others)
most_confident_60  the 60 % of photos with the highest confidence

Intervals are 95 % bootstrap intervals over products. The JSON contains counts and shares, no file names.

Out: benchmarks/results/real_photos.json and a table.
Command: python benchmarks/real_photos.py --photos FOLDER|FILE.csv
Time: about a second per photo and core; OCR results are cached.
"""

import csv
import io
import logging
import math
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import tyro

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(REPOSITORY / "src"), str(REPOSITORY)]

from benchmarks.photo_scores import Answer, counts_by, score

from skincare import images
from skincare.errors import MissingInputError, StageError
from skincare.files import write_json, write_text
from skincare.labels import skincare_labels
from skincare.paths import Layout
from skincare.runlog import environment
from skincare.text_reading.extraction import ImageFile, extract_all
from skincare.text_reading.ocr import EngineName, engine_label, make_engine
from skincare.text_reading.ocr_cache import OcrCache
from skincare.text_reading.pack_text import PackText
from skincare.text_reading.reader import Reader
from skincare.text_reading.reader_store import read_catalogue_names

logger = logging.getLogger("real_photos")

_COLUMNS: Final = ("file", "category", "product_key")


@dataclass(frozen=True)
class Config:
    """Command line of the benchmark."""

    photos: Path
    """A CSV of photos, or the folder that contains it."""
    catalogue: Path | None = None
    """Catalogue whose names the second reader is fitted on."""
    ocr: EngineName = "rapidocr"
    """OCR engine."""
    n_timed: int = 24
    """Number of photos that are read again for timing."""
    failures: Path | None = None
    """Optional CSV of the photos that were not classified correctly."""
    out: Path = REPOSITORY / "benchmarks" / "results" / "real_photos.json"
    """Output file."""


@dataclass(frozen=True)
class Photo:
    """One labelled photo."""

    path: Path
    category: str
    product_key: str
    shop: str
    kind: str


def main() -> None:
    """Read all photos, score both readers, write the JSON, log a table."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    config = tyro.cli(Config, description=__doc__)
    try:
        result = run(config)
    except StageError as error:
        logger.error("%s", error)
        sys.exit(error.exit_code)
    write_json(config.out, result)
    logger.info("%s\n%s", _table(result), config.out)


def run(config: Config) -> dict[str, Any]:
    """Return the contents of the JSON."""
    table = find_table(config.photos)
    photos = read_photos(table)
    packs = read_all(photos, config.ocr)
    readers: dict[str, Reader] = {"table": Reader(skincare_labels())}
    catalogue = catalogue_of(config.catalogue, table)
    if catalogue:
        readers["table and names"] = Reader.fit(skincare_labels(), *read_catalogue_names(catalogue, skincare_labels()))
    answers = {name: _answers(photos, packs, reader) for name, reader in readers.items()}
    if config.failures:
        write_text(config.failures, _failures(photos, packs, readers["table"]))
    return {
        "photos": {"n": len(photos), "n_products": len({one.product_key for one in photos})},
        "catalogue": f"{catalogue.name}, {_n_names(catalogue)} names" if catalogue else None,
        "engine": engine_label(config.ocr),
        "most_frequent_category": max(map([one.category for one in photos].count, skincare_labels().names))
        / len(photos),
        "cpu_seconds_a_photo": _time(photos, config.ocr, config.n_timed),
        "readers": {name: {**score(scored), **_groups(photos, scored)} for name, scored in answers.items()},
        **environment(),
        # Without the user's paths.
        "command": "python benchmarks/real_photos.py --photos FOLDER",
    }


def find_table(path: Path) -> Path:
    """Return the CSV of `--photos`; raises MissingInputError if there is none."""
    if path.is_file():
        return path
    # The table is in the folder of the images or next to it.
    for place in (*sorted(path.glob("*.csv")), path.with_name(f"{path.name}.csv")):
        if place.is_file() and set(_COLUMNS) <= set(_header(place)):
            return place
    raise MissingInputError(
        "table of photos", path, f"Name a CSV with the columns {', '.join(_COLUMNS)}, or its folder."
    )


def read_photos(table: Path) -> list[Photo]:
    """Return the photos of a table; raises StageError with the row number if it is malformed."""
    photos = []
    with table.open(encoding="utf-8-sig", newline="") as file:
        rows = csv.DictReader(file)
        absent = set(_COLUMNS) - set(rows.fieldnames or ())
        if absent:
            raise StageError(f"{table} has no column {', '.join(sorted(absent))}")
        for number, row in enumerate(rows, start=2):
            path = table.parent / row["file"]
            if row["category"] not in skincare_labels().names:
                raise StageError(f"{table}, row {number}: {row['category']!r} is not one of the categories")
            if not path.is_file():
                raise StageError(f"{table}, row {number}: there is no {path}")
            shop = row.get("shop") or row.get("repo") or row["product_key"].partition("::")[0]
            photos.append(Photo(path, row["category"], row["product_key"], shop, row.get("kind") or "unknown"))
    if not photos:
        raise StageError(f"{table} lists no photos")
    return photos


def read_all(photos: Sequence[Photo], ocr: EngineName) -> list[PackText]:
    """Return the text of each photo, from the cache where possible."""
    files = [ImageFile(str(number), photo.path.name, photo.path) for number, photo in enumerate(photos)]
    with OcrCache(Layout(REPOSITORY).ocr_cache) as cache:
        return extract_all(files, cache, ocr)[0]


def _time(photos: Sequence[Photo], ocr: EngineName, n_timed: int) -> dict[str, float]:
    """Return CPU seconds per photo (decoding, OCR and reader) for evenly spaced photos."""
    engine, reader = make_engine(ocr), Reader(skincare_labels())
    seconds = []
    for photo in photos[:: max(1, len(photos) // n_timed)][:n_timed]:
        content = photo.path.read_bytes()
        # CPU time: wall time depends on other load.
        started = time.process_time()
        try:
            reader.predict(engine.read(images.decode_with_notes(content).pixels))
        except images.BrokenImageError as error:
            logger.warning("%s: %s", photo.path, error)
        seconds.append(time.process_time() - started)
    named = {"mean": np.mean(seconds), "median": np.median(seconds), "p95": np.quantile(seconds, 0.95)}
    return {"n_photos": len(seconds), **{name: round(float(value), 2) for name, value in named.items()}}


def _answers(photos: Sequence[Photo], packs: Sequence[PackText], reader: Reader) -> list[Answer]:
    found = []
    for number, (photo, pack) in enumerate(zip(photos, packs, strict=True)):
        predicted = reader.predict(pack.lines, pack.other_script)
        likeliest = skincare_labels().names[int(np.argmax(predicted.log_probabilities))]
        has_text = any(map(str.isalpha, "".join(pack.texts)))
        is_answered = predicted.status == "read"
        ids = str(number), photo.product_key
        found.append(Answer(*ids, photo.category, likeliest, has_text, is_answered, predicted.confidence))
    return found


def _groups(photos: Sequence[Photo], answers: Sequence[Answer]) -> dict[str, Any]:
    """Return counts by category, shop and kind."""
    return {
        f"by_{name}": counts_by([getattr(photo, name) for photo in photos], answers)
        for name in ("category", "shop", "kind")
    }


def _failures(photos: Sequence[Photo], packs: Sequence[PackText], reader: Reader) -> str:
    """Return a CSV of the photos that were not classified correctly, with their text."""
    lines = [["file", "truth", "likeliest", "confidence", "status", "evidence", "text"]]
    for photo, pack in zip(photos, packs, strict=True):
        predicted = reader.predict(pack.lines, pack.other_script)
        if predicted.label != photo.category:
            likeliest = skincare_labels().names[int(np.argmax(predicted.log_probabilities))]
            words = [
                f"{predicted.confidence:.2f}",
                predicted.status,
                "; ".join(predicted.evidence),
                " / ".join(pack.texts),
            ]
            lines.append([photo.path.name, photo.category, likeliest, *words])
    buffer = io.StringIO()
    csv.writer(buffer, lineterminator="\n").writerows(lines)
    return buffer.getvalue()


def catalogue_of(named: Path | None, table: Path) -> Path | None:
    """Return the catalogue: the named one, else that of the project, else the one next to the photos."""
    if named is not None:
        if not named.is_file():
            raise MissingInputError("catalogue", named, "Name another --catalogue, or omit it.")
        return named
    own = Layout(REPOSITORY).catalogue
    return next((path for path in (own, table.parent / own.name) if path.is_file()), None)


def _n_names(catalogue: Path) -> int:
    return len(read_catalogue_names(catalogue, skincare_labels())[0])


def _header(path: Path) -> list[str]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        return next(csv.reader(file), [])


def _table(result: Mapping[str, Any]) -> str:
    lines = [f"{result['photos']['n']} photos of {result['photos']['n_products']} products; {result['engine']}"]
    lines.append(f"catalogue: {result['catalogue']}; CPU seconds a photo: {result['cpu_seconds_a_photo']}")
    lines.append(f"{'most frequent category':24} accuracy {result['most_frequent_category']:.1%}")
    for name, one in result["readers"].items():
        for key in (
            "accuracy",
            "accuracy_no_text_is_wrong",
            "macro_f1",
            "accuracy_of_most_confident_60",
            "answered",
            "accuracy_of_answered",
        ):
            value, interval = one[key]["value"], one[key]["interval"]
            shown = "" if interval is None else f" ({interval[0]:.1%} to {interval[1]:.1%})"
            lines.append(f"{name:24} {key:29} {math.nan if value is None else value:.1%}{shown}")
        lines.append(f"{name:24} expected calibration error {one['expected_calibration_error']:.3f}")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
