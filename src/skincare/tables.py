"""The CSV tables that stages exchange: one frozen dataclass per kind of row, one checked read, one write.

A read names the file, the line and the command that makes the file again. A write is atomic and sorted, so that the
same rows give the same bytes. Fields without a default are required columns; unknown columns are ignored, so that
people may add their own. A text that a spreadsheet would take for a formula is written with an apostrophe before it.
"""

import csv
import dataclasses
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Generic, TypeVar, get_type_hints

from skincare.errors import MissingInputError, StageError
from skincare.files import replacing
from skincare.table_cells import NumberedLines, csv_line, for_spreadsheet, from_cell, from_spreadsheet, to_cell

Row = TypeVar("Row")


@dataclass(frozen=True)
class CatalogueRow:
    """One row of the shop's catalogue as published; `skincare.catalogue` turns rows into products."""

    product_name: str
    product_url: str
    product_type: str
    clean_ingreds: str = ""
    price: str = ""
    product_id: str = ""  # for addresses without an id
    source: str = ""  # where it is not the run's


@dataclass(frozen=True)
class ImageRow:
    """One scraped image that is on disk."""

    product_url: str
    image_id: str
    product_id: str
    file: str
    source_url: str
    width: int
    height: int
    n_bytes: int
    sha256: str
    licence: str = ""
    attribution: str = ""


@dataclass(frozen=True)
class MetadataRow:
    """Metadata of one product; an empty cell is an unknown value. See skincare.collecting.metadata."""

    product_url: str
    product_id: str
    category: str
    name: str
    brand: str
    price: str
    currency: str
    description: str
    size: str
    ingredients: str
    how_to_use: str
    country: str
    manufacturer: str
    sources: str  # where each field was read, such as `name=json_ld price=page size=name`
    source: str
    licence: str


@dataclass(frozen=True)
class StatedFactRow:
    """One value that the user knows of a product; `-` states that the product has none. See skincare.product."""

    product_id: str
    field: str
    value: str
    source: str


@dataclass(frozen=True)
class FailureRow:
    """One product (image_url empty) or one of its images that could not be scraped."""

    product_url: str
    product_id: str
    image_url: str
    reason: str
    detail: str
    http_status: int | None
    attempts: int


@dataclass(frozen=True)
class CleanRow:
    """One image that passed the cleaning."""

    product_url: str
    image_id: str
    product_id: str
    file: str
    width: int
    height: int
    # See skincare.cleaning.quality: of the content, which the check uses, and of the whole frame, as in the reference
    # experiment.
    sharpness: float
    plain_sharpness: float
    sha256: str
    dhash_16x16: str  # 256 bits each in hexadecimal digits, see skincare.cleaning.hashes
    phash_16x16: str = ""


@dataclass(frozen=True)
class RejectedRow:
    """One image that the cleaning rejected, with the value that failed the check and the threshold."""

    product_url: str
    image_id: str
    product_id: str
    file: str
    reason: str
    value: str
    limit: str
    # For duplicates, the image_id of the representative that was kept.
    duplicate_of: str = ""


@dataclass(frozen=True)
class SplitRow:
    """The frozen split of one product; all images of a group are in the same split."""

    product_id: str
    group_id: str
    category: str
    split: str


@dataclass(frozen=True)
class HistoryRow:
    """One epoch of a training run; epoch 0 is the model before training. Precision, recall and F1 are weighted."""

    epoch: int
    step: int
    learning_rate: float
    train_loss: float | None
    grad_norm: float | None
    val_loss: float
    val_accuracy: float
    val_precision: float
    val_recall: float
    val_f1: float
    val_macro_f1: float
    val_coverage: float
    seconds: float


@dataclass(frozen=True)
class ProductHistoryRow(HistoryRow):
    """One epoch of a run on structured answers; accuracy and the like are of their category.

    val_document_anls: mean ANLS* of the whole answers, which selects the epoch.
    """

    val_document_anls: float


@dataclass(frozen=True)
class ComparisonRow:
    """One recipe trained with one seed; the interval of the test accuracy is over products."""

    recipe: str
    seed: int
    val_accuracy: float
    test_accuracy: float
    test_low: float
    test_high: float
    test_macro_f1: float
    best_epoch: int
    n_epochs: int
    n_trainable: int
    training_seconds: float
    peak_bytes: int
    exported_val_accuracy: float | None = None  # val evaluated again with the exported model


@dataclass(frozen=True)
class Table(Generic[Row]):
    """How rows of one kind are read and written."""

    row_type: type[Row]
    remedy: str
    sort_by: tuple[str, ...]
    # In files of others, a leading apostrophe belongs to the text.
    is_ours: bool = True

    def read(self, path: Path) -> list[Row]:
        """Return the rows of `path` in file order.

        Raises MissingInputError when the file is absent, StageError naming file and line when it is malformed.
        """
        return list(self.rows(path))

    def rows(self, path: Path) -> Iterator[Row]:
        """Yield what `read` returns, one row at a time."""
        if not path.is_file():
            what = self.row_type.__name__.removesuffix("Row").lower()
            raise MissingInputError(f"{what} table", path, self.remedy)
        try:
            with path.open(encoding="utf-8-sig", newline="") as file:
                yield from self._parse(path, lines := NumberedLines(file))
        except UnicodeDecodeError as error:
            raise StageError(f"{path}: not UTF-8 text ({error}); save it as CSV in UTF-8\n{self.remedy}") from error
        except csv.Error as error:
            raise StageError(f"{path}, line {lines.number}: cannot be read as CSV ({error})\n{self.remedy}") from error

    def write(self, path: Path, rows: Iterable[Row], *, is_sorted: bool = False) -> None:
        """Replace `path` by `rows`, sorted; with `is_sorted` they are streamed, which needs no memory for all rows."""
        names = [field.name for field in dataclasses.fields(self.row_type)]  # type: ignore[arg-type]
        in_order = self._checked(rows) if is_sorted else sorted(rows, key=self._sort_key)
        with replacing(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
            file.write(csv_line(names))
            for row in in_order:
                file.write(csv_line([self._to_cell(getattr(row, name)) for name in names]))

    def _checked(self, rows: Iterable[Row]) -> Iterator[Row]:
        last: tuple[Any, ...] = ()
        for row in rows:
            key = self._sort_key(row)
            assert last <= key, f"not sorted: {row}"
            last = key
            yield row

    def _sort_key(self, row: Row) -> tuple[Any, ...]:
        return tuple(natural_key(str(getattr(row, name))) for name in self.sort_by)

    def _to_cell(self, value: object) -> str:
        return for_spreadsheet(value) if self.is_ours and isinstance(value, str) else to_cell(value)

    def _parse(self, path: Path, lines: Iterable[str]) -> Iterator[Row]:
        reader = csv.DictReader(lines, strict=True)
        hints = get_type_hints(self.row_type)
        fields = dataclasses.fields(self.row_type)  # type: ignore[arg-type]
        header = Counter(reader.fieldnames or ())
        absent = [f.name for f in fields if f.name not in header and f.default is dataclasses.MISSING]
        if absent:
            first = ",".join(header)[:200]
            raise StageError(f"{path}: no column {', '.join(absent)}; the first line is {first!r}\n{self.remedy}")
        used = {f.name: hints[f.name] for f in fields if f.name in header}
        if repeated := [name for name in used if header[name] > 1]:
            raise StageError(f"{path}: more than one column {', '.join(repeated)}\n{self.remedy}")
        for cells in reader:
            try:
                row = self.row_type(**{name: self._from_cell(cells[name], kind) for name, kind in used.items()})
            except ValueError as error:
                raise StageError(f"{path}, line {reader.line_num}: {error}\n{self.remedy}") from error
            yield row

    def _from_cell(self, cell: str | None, kind: Any) -> Any:
        value = from_cell(cell, kind)
        return from_spreadsheet(value) if self.is_ours and isinstance(value, str) else value


def natural_key(text: str) -> tuple[tuple[int, int, str, str], ...]:
    """Return a sort key that orders digit runs by value, so that `12_2` comes before `12_10`."""
    return tuple(map(_part_key, re.findall(r"[0-9]+|[^0-9]+", text)))


def _part_key(part: str) -> tuple[int, int, str, str]:
    if not (part.isascii() and part.isdigit()):
        return 1, 0, part, ""
    # Length and digits order like the value; int() rejects more than 4,300 digits.
    digits = part.lstrip("0")
    return 0, len(digits), digits, part


CATALOGUE_REMEDY: Final = (
    'The catalogue is the public "Skincare Products Clean Dataset" on Kaggle: put its skincare_products_clean.csv '
    "there, or import photos of your own with `python src/import_images.py FOLDER`, or run `make sample`."
)
CATALOGUE: Final = Table(CatalogueRow, CATALOGUE_REMEDY, ("product_url",), is_ours=False)
IMAGES: Final = Table(ImageRow, "Make it with `python src/scrape.py`.", ("image_id",))
METADATA: Final = Table(MetadataRow, "Make it with `python src/scrape.py`.", ("product_id",))
STATED_FACTS: Final = Table(
    StatedFactRow, "docs/products.md describes this table.", ("product_id", "field"), is_ours=False
)
FAILURES: Final = Table(FailureRow, "Make it with `python src/scrape.py`.", ("product_id", "product_url", "image_url"))
CLEAN: Final = Table(CleanRow, "Make it with `python src/clean.py`.", ("image_id",))
REJECTED: Final = Table(RejectedRow, "Make it with `python src/clean.py`.", ("image_id",))
SPLITS: Final = Table(SplitRow, "Make it with `python src/build_dataset.py`.", ("product_id",))
HISTORY: Final = Table(HistoryRow, "Make it with `python src/finetune.py`.", ("epoch",))
PRODUCT_HISTORY: Final = Table(ProductHistoryRow, HISTORY.remedy, HISTORY.sort_by)
COMPARISON: Final = Table(ComparisonRow, "Make it with `python src/compare_recipes.py`.", ("recipe", "seed"))
