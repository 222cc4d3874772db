"""Images in Parquet files, such as `export_dataset.py --format parquet` writes, or in a saved `datasets` folder.

A category is a column of texts, or of numbers with names in the schema (`ClassLabel`). Credits come from
`images.csv` next to the shards if export_dataset.py wrote one. Needs pyarrow.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from itertools import islice
from pathlib import Path
from typing import Any, Final

from skincare.dataset.shard_formats import pyarrow_modules
from skincare.errors import StageError
from skincare.importing.category_names import CategoryNames
from skincare.importing.columns import Role, choose_columns
from skincare.importing.entries import Entry, Refusal, entry_of
from skincare.importing.folder_source import place_of
from skincare.tables import IMAGES, ImageRow

SUFFIXES: Final = frozenset({".parquet", ".arrow"})
_CREDITS: Final = "images.csv"
_SAMPLED_ROWS: Final = 200
_BATCH_ROWS: Final = 1000


@dataclass(frozen=True)
class ShardSource:
    """Parquet or Arrow files with one row per image."""

    root: Path
    files: Sequence[Path]
    names: CategoryNames
    given: Mapping[Role, str] = field(default_factory=dict)

    @property
    def description(self) -> str:
        """Return the files and the columns that are used."""
        used = ", ".join(f"{role} = {column}" for role, column in self.columns.items())
        return f"{len(self.files)} {self.files[0].suffix[1:]} file(s) with the columns {used}"

    @cached_property
    def columns(self) -> dict[str, str]:
        """Return the column of each role."""
        schema = _schema(self.files[0])
        image = self.given.get("image") or _image_column(schema)
        if not image:
            raise StageError(f"{self.files[0]}: no column holds images; columns: {', '.join(schema.names)[:1000]}")
        texts = [name for name in schema.names if name != image]
        sample = [cells for _, cells in islice(_rows(self.files[0], texts), _SAMPLED_ROWS)]
        # The image column has no text for the detection by content.
        rows = [{**cells, image: "x.jpg"} for cells in sample]
        try:
            return choose_columns(
                schema.names, rows, {**self.given, "image": image}, lambda text: bool(self.names.find(text))
            )
        except StageError as error:
            raise StageError(f"{self.files[0]}: {error}") from error

    def items(self) -> Iterator[Entry | Refusal]:
        """Yield every row of every file."""
        credits = self._credits()
        column = self.columns["image"]
        used = [*dict.fromkeys([name for role, name in self.columns.items() if role != "image"])]
        for path in self.files:
            schema = _schema(path)
            if column not in schema.names:
                yield Refusal(place_of(path, self.root), "bad_row", f"no column {column!r}")
                continue
            present = [name for name in (*used, "image_id") if name in schema.names]
            for row, cells in _rows(path, [*dict.fromkeys(present)]):
                texts = {role: " ".join(cells.get(name, "").split()) for role, name in self.columns.items()}
                if credit := credits.get(cells.get("image_id", "")):
                    texts = {
                        "licence": credit.licence, "attribution": credit.attribution, "origin": credit.source_url,
                    } | {role: text for role, text in texts.items() if text}  # fmt: skip
                place = f"{place_of(path, self.root)}#{row}"
                yield entry_of(texts, place, path, texts.get("category", ""), row=row, column=column)

    def _credits(self) -> dict[str, ImageRow]:
        path = self.root / _CREDITS
        try:
            return {row.image_id: row for row in IMAGES.rows(path)} if path.is_file() else {}
        except StageError:
            # A file of that name that export_dataset.py did not write.
            return {}


def cell_bytes(path: Path, row: int, column: str) -> bytes:
    """Return the bytes of an image's cell; ValueError if it has none or the file is damaged."""
    arrow, _ = pyarrow_modules()
    try:
        start, table = _row_group(path, *_group_of(path, row), column)
        value = table.column(0)[row - start].as_py()
    except (arrow.ArrowException, OSError, IndexError, KeyError) as error:
        raise ValueError(f"unreadable row ({type(error).__name__})") from error
    content = value.get("bytes") if isinstance(value, dict) else value
    if not isinstance(content, bytes):
        raise ValueError("the cell holds no bytes of an image")
    return content


@lru_cache(maxsize=4)
def _group_starts(path: Path) -> tuple[int, ...]:
    """Return the first row of each row group of a Parquet file, then the number of rows."""
    _, parquet = pyarrow_modules()
    metadata = parquet.read_metadata(path)
    starts = [0]
    for i in range(metadata.num_row_groups):
        starts.append(starts[-1] + metadata.row_group(i).num_rows)
    return tuple(starts)


def _group_of(path: Path, row: int) -> tuple[int, int]:
    """Return the row group of a row and the group's first row; all rows of an Arrow file are one group."""
    if path.suffix != ".parquet":
        return 0, 0
    starts = _group_starts(path)
    group = next(i for i in range(len(starts) - 1) if row < starts[i + 1])
    return group, starts[group]


@lru_cache(maxsize=1)
def _row_group(path: Path, group: int, start: int, column: str) -> tuple[int, Any]:
    """Return the first row and the table of one row group; the last one is cached, since rows are read in order."""
    arrow, parquet = pyarrow_modules()
    if path.suffix == ".parquet":
        # pyarrow must not start threads in a forked worker.
        file = parquet.ParquetFile(path, memory_map=True, pre_buffer=False)
        return start, file.read_row_group(group, columns=[column], use_threads=False)
    with arrow.memory_map(str(path)) as mapped:
        return start, _arrow_reader(mapped).read_all().select([column])


def _arrow_reader(mapped: Any) -> Any:
    """Return a reader of an Arrow file or stream; `datasets` writes streams."""
    arrow, _ = pyarrow_modules()
    try:
        return arrow.ipc.open_stream(mapped)
    except arrow.ArrowInvalid:
        return arrow.ipc.open_file(mapped)


def _schema(path: Path) -> Any:
    arrow, parquet = pyarrow_modules()
    try:
        if path.suffix == ".parquet":
            return parquet.read_schema(path)
        with arrow.memory_map(str(path)) as mapped:
            return _arrow_reader(mapped).schema
    except (arrow.ArrowException, OSError) as error:
        raise StageError(f"{path}: no readable {path.suffix[1:]} file ({error})") from error


def _features(schema: Any) -> dict[str, Any]:
    """Return the features that `datasets` stores with a schema."""
    try:
        features = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
    except (KeyError, ValueError, TypeError):
        return {}
    return features if isinstance(features, dict) else {}


def _image_column(schema: Any) -> str:
    """Return the column with the `datasets` feature Image, else the first of bytes; empty if there is none."""
    arrow, _ = pyarrow_modules()
    features = _features(schema)
    known = [name for name in schema.names if (features.get(name) or {}).get("_type") == "Image"]
    kinds = {name: schema.field(name).type for name in schema.names}
    of_bytes = [name for name, kind in kinds.items() if _holds_bytes(arrow, kind)]
    return next(iter(known + of_bytes), "")


def _holds_bytes(arrow: Any, kind: Any) -> bool:
    if arrow.types.is_struct(kind):
        return any(kind.field(i).name == "bytes" for i in range(kind.num_fields))
    return bool(arrow.types.is_binary(kind) or arrow.types.is_large_binary(kind))


def _rows(path: Path, columns: Sequence[str]) -> Iterator[tuple[int, dict[str, str]]]:
    """Yield each row's number and its cells as text; numbers of a ClassLabel become its names."""
    arrow, parquet = pyarrow_modules()
    features = _features(_schema(path))
    classes = {name: (features.get(name) or {}).get("names") for name in columns}
    row = 0
    try:
        if path.suffix == ".parquet":
            batches = parquet.ParquetFile(path).iter_batches(_BATCH_ROWS, columns=list(columns), use_threads=False)
            for batch in batches:
                for cells in batch.to_pylist():
                    yield row, _as_texts(cells, classes)
                    row += 1
            return
        with arrow.memory_map(str(path)) as mapped:
            for batch in _arrow_reader(mapped).read_all().select(list(columns)).to_batches(_BATCH_ROWS):
                for cells in batch.to_pylist():
                    yield row, _as_texts(cells, classes)
                    row += 1
    except (arrow.ArrowException, OSError) as error:
        raise StageError(f"{path}: damaged after row {row} ({error})") from error


def _as_texts(cells: Mapping[str, Any], classes: Mapping[str, Any]) -> dict[str, str]:
    return {name: _as_text(value, classes.get(name)) for name, value in cells.items()}


def _as_text(value: Any, names: Any) -> str:
    if isinstance(names, list) and isinstance(value, int):
        return str(names[value]) if 0 <= value < len(names) else ""
    return str(value) if isinstance(value, str | int | float) and not isinstance(value, bool) else ""
