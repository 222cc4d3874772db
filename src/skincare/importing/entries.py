"""Items of an image source: an `Entry` per image to import, a `Refusal` per file or row that is not imported."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

RefusalReason = Literal[
    "bad_row", "conflicting_category", "duplicate_row", "is_a_web_address", "missing_file", "not_a_file",
    "not_in_table", "no_category", "no_image", "outside_source", "symlinked_folder", "too_large", "unknown_category",
    "unreadable_file", "unreadable_folder",
]  # fmt: skip


@dataclass(frozen=True, slots=True)
class Entry:
    """One image of the source; empty texts are unknown.

    place: its path below the source, with forward slashes, for shards with the number of the row. path: the file that
    holds its bytes; row, column: the cell of a Parquet or Arrow file, -1 and "" for an image file. category: as the
    source writes it. folder: the folder below that of the category. line: of the table, 0 without one.
    """

    place: str
    path: Path
    category: str
    row: int = -1
    column: str = ""
    folder: str = ""
    product: str = ""
    name: str = ""
    licence: str = ""
    attribution: str = ""
    origin: str = ""
    line: int = 0


def entry_of(
    texts: Mapping[str, str], place: str, path: Path, category: str, *, row: int = -1, column: str = "",
    folder: str = "", line: int = 0,
) -> Entry:  # fmt: skip
    """Return an entry with product, name and credits from the texts by role; missing ones are empty."""
    return Entry(
        place, path, category, row, column, folder, texts.get("product", ""), texts.get("name", ""),
        texts.get("licence", ""), texts.get("attribution", ""), texts.get("origin", ""), line,
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Refusal:
    """A file or a row that is not imported."""

    place: str
    reason: RefusalReason
    detail: str = ""


class Source(Protocol):
    """A collection of images on disk."""

    @property
    def description(self) -> str:
        """Return the form of the source with the columns that are used, for the log."""
        ...

    @property
    def columns(self) -> dict[str, str]:
        """Return the column of each role; absent roles are left out."""
        ...

    def items(self) -> Iterator[Entry | Refusal]:
        """Yield every file or row, in an order that depends only on the source."""
        ...
