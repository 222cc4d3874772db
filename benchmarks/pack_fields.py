"""Accuracy of the fields that the product reader extracts from photos of real packs, against values marked by hand.

`benchmarks/pack_marks.csv` holds what a person reads on each photo: one row per image (by the SHA-256 of its file),
a value as printed, `|` between equally right values, `-` where the photo does not show the field, and an empty cell
where a person cannot tell (too small, cut off); such a cell is not scored. A value that the reader gives where the
mark is `-` counts as invented. `part` is `development` (the rules were written with these photos in view) or
`held_out` (marked before the reader's answers were seen, and never used to choose a rule); products were drawn with
seed 17 and none is in both parts. Categories are those of the photos' table.

`--photos` is the table of `benchmarks/real_photos.py`, or its folder; photos without a mark are left out. The reader
is that of `predict.py --target product`: without a catalogue, as in a fresh clone, and with the brands of one. Brands
are also scored apart: `listed` in the reader's lists of known brands, and `unlisted`.

Intervals are 95 % bootstrap intervals over products. The JSON contains counts and shares, no file names.

Out: benchmarks/results/pack_fields.json and a table.
Command: python benchmarks/pack_fields.py --photos FOLDER|FILE.csv
Time: about a second per photo and core; OCR results are cached.
"""

import csv
import hashlib
import io
import logging
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import tyro

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(REPOSITORY / "src"), str(REPOSITORY)]

from benchmarks.real_photos import Photo, catalogue_of, find_table, read_all, read_photos

from skincare.errors import StageError
from skincare.evaluation import product_metrics
from skincare.evaluation.field_similarity import similarity
from skincare.evaluation.product_metrics import FieldScores, ScoredProduct
from skincare.files import write_json, write_text
from skincare.labels import skincare_labels
from skincare.product.brands import well_known_brands
from skincare.product.normalisation import normalised
from skincare.product.schema import Product
from skincare.runlog import environment
from skincare.text_reading.ocr import EngineName, engine_label
from skincare.text_reading.pack_products import known_brands_reader
from skincare.text_reading.pack_text import PackText
from skincare.text_reading.product_reader import ProductReader
from skincare.text_reading.reader import Reader
from skincare.text_reading.reader_store import read_catalogue_names

logger = logging.getLogger("pack_fields")

FIELDS: Final = ("brand", "manufacturer", "name", "origin", "size", "forNightOrMorning")
PARTS: Final = ("development", "held_out")
ABSENT: Final = "-"
_SCORED: Final = ("category", *FIELDS)


@dataclass(frozen=True)
class Config:
    """Command line of the benchmark."""

    photos: Path
    """A CSV of photos, or the folder that contains it."""
    marks: Path = REPOSITORY / "benchmarks" / "pack_marks.csv"
    """The values marked by hand."""
    catalogue: Path | None = None
    """Catalogue whose brands the second reader knows; by default the one next to the photos."""
    ocr: EngineName = "rapidocr"
    """OCR engine."""
    failures: Path | None = None
    """Optional CSV of the fields of the development part that are not correct."""
    out: Path = REPOSITORY / "benchmarks" / "results" / "pack_fields.json"
    """Output file."""


@dataclass(frozen=True)
class Mark:
    """What a person reads on one photo: field -> equally right values, none where the photo does not show it."""

    part: str
    values: Mapping[str, tuple[str, ...]]


def main() -> None:
    """Read all marked photos, score both readers, write the JSON, log a table."""
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
    marks = read_marks(config.marks)
    photos = {_digest(photo.path): photo for photo in read_photos(table)}
    photos = {digest: photo for digest, photo in photos.items() if digest in marks}
    if not photos:
        raise StageError(f"{table}: none of the photos is marked in {config.marks}")
    packs = read_all(list(photos.values()), config.ocr)
    catalogue = catalogue_of(config.catalogue, table)
    readers = {"no catalogue": (Reader(skincare_labels()), ProductReader())}
    if catalogue:
        names, labels = read_catalogue_names(catalogue, skincare_labels())
        readers["catalogue"] = (Reader.fit(skincare_labels(), names, labels), known_brands_reader(names))
    scored = {name: _answers(photos, marks, packs, *reader) for name, reader in readers.items()}
    if config.failures:
        write_text(config.failures, _failures(photos, packs, scored[list(scored)[-1]]["development"]))
    return {
        "photos": {part: len(found) for part, found in next(iter(scored.values())).items()},
        "catalogue": catalogue.name if catalogue else None,
        "engine": engine_label(config.ocr),
        "readers": {
            name: {
                part: {**_scores(found[part]), "brand_by_list": _by_list(found[part], marks, readers[name][1])}
                for part in found
            }
            for name, found in scored.items()
        },
        **environment(),
        # Without the user's paths.
        "command": "python benchmarks/pack_fields.py --photos FOLDER",
    }


def read_marks(path: Path) -> dict[str, Mark]:
    """Return SHA-256 -> mark; raises StageError with the row number if the table is malformed."""
    found = {}
    with path.open(encoding="utf-8", newline="") as file:
        rows = csv.DictReader(file)
        if set(rows.fieldnames or ()) != {"sha256", "part", *FIELDS}:
            raise StageError(f"{path} does not have the columns sha256, part, {', '.join(FIELDS)}")
        for number, row in enumerate(rows, start=2):
            if row["part"] not in PARTS or row["sha256"] in found:
                raise StageError(f"{path}, row {number}: an unknown part or an image that is marked twice")
            cells = {field: row[field].strip() for field in FIELDS}
            values = {field: () if cell == ABSENT else tuple(cell.split("|")) for field, cell in cells.items() if cell}
            found[row["sha256"]] = Mark(row["part"], values)
    return found


def scored_product(digest: str, product_id: str, category: str, mark: Mark, predicted: Product) -> ScoredProduct:
    """Return an answer with its truth: of equally right values the one most similar to the answer."""
    truth: dict[str, str] = {"category": category}
    for field, values in mark.values.items():
        right = list(values)
        if field == "name":
            # A name may begin with the brand.
            right += [f"{brand} {name}" for brand in mark.values.get("brand", ()) for name in values]
        answer = getattr(predicted, field)
        if right:
            truth[field] = max(right, key=lambda one: similarity(field, one, answer)) if answer else right[0]
    absent = frozenset(field for field, values in mark.values.items() if not values)
    return ScoredProduct(digest, product_id, Product.model_validate(truth), predicted, "valid", absent)


def _answers(
    photos: Mapping[str, Photo],
    marks: Mapping[str, Mark],
    packs: Sequence[PackText],
    reader: Reader,
    products: ProductReader,
) -> dict[str, list[ScoredProduct]]:
    """Return part -> answers."""
    found: dict[str, list[ScoredProduct]] = {part: [] for part in PARTS}
    for (digest, photo), pack in zip(photos.items(), packs, strict=True):
        read = reader.predict(pack.lines, pack.other_script)
        predicted = products.read(pack.lines, read.label if read.status == "read" else None)
        mark = marks[digest]
        found[mark.part].append(scored_product(digest, photo.product_key, photo.category, mark, predicted))
    return {part: answers for part, answers in found.items() if answers}


def _scores(answers: Sequence[ScoredProduct]) -> dict[str, Any]:
    """Return field -> scores, for the fields that are marked."""
    fields = {one.field: _plain(one) for one in product_metrics.score(answers).fields if one.field in _SCORED}
    return {"n": len(answers), "n_products": len({one.product_id for one in answers}), "fields": fields}


def _by_list(
    answers: Sequence[ScoredProduct], marks: Mapping[str, Mark], products: ProductReader
) -> dict[str, dict[str, Any]]:
    """Return the scores of brands that the reader's lists hold, and of brands that none holds."""
    known = {normalised(brand) for brand in (*products.brands, *well_known_brands())}
    groups: dict[str, list[ScoredProduct]] = {"listed": [], "unlisted": []}
    for one in answers:
        if brands := marks[one.image_id].values.get("brand"):
            groups["listed" if known & set(map(normalised, brands)) else "unlisted"].append(one)
    scores = {name: product_metrics.score(group).fields for name, group in groups.items() if group}
    return {name: _plain(next(one for one in fields if one.field == "brand")) for name, fields in scores.items()}


def _plain(scores: FieldScores) -> dict[str, Any]:
    return {key: value for key, value in asdict(scores).items() if key not in ("field", "n_unscored")}


def _failures(photos: Mapping[str, Photo], packs: Sequence[PackText], answers: Sequence[ScoredProduct]) -> str:
    """Return a CSV of the fields that are not correct, with the text of their packs."""
    texts = {digest: " / ".join(pack.texts) for digest, pack in zip(photos, packs, strict=True)}
    lines = [["field", "outcome", "file", "truth", "answer", "text"]]
    for field in _SCORED:
        for one in answers:
            result = product_metrics.outcome(one, field)
            if result and result != "correct":
                shown = (str(getattr(product, field) or "") for product in (one.truth, one.predicted))
                lines.append([field, result, photos[one.image_id].path.name, *shown, texts[one.image_id]])
    buffer = io.StringIO()
    csv.writer(buffer, lineterminator="\n").writerows(lines)
    return buffer.getvalue()


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _table(result: Mapping[str, Any]) -> str:
    lines = [f"{result['photos']} photos; {result['engine']}; catalogue: {result['catalogue']}"]
    for name, parts in result["readers"].items():
        for part, scores in parts.items():
            lines.append(f"{name}, {part}: {scores['n']} photos of {scores['n_products']} products")
            rows = {**scores["fields"], **{f"brand, {name}": one for name, one in scores["brand_by_list"].items()}}
            for field, one in rows.items():
                counts = ", ".join(f"{one[key]} {key}" for key in product_metrics.OUTCOMES) + f" of {one['n_absent']}"
                f1 = "-" if one["f1"] is None else f"{one['f1']:.2f}"
                interval = "" if one["f1_low"] is None else f" ({one['f1_low']:.2f} to {one['f1_high']:.2f})"
                lines.append(f"  {field:18} F1 {f1}{interval:16} {counts}")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
