"""Grouping of images into products: by a column, by folders, by numbered file names, or by near-duplicates.

A product id is derived from the SHA-256 of the product's key (column value, folder or common file name), so it is the
same in every run and does not change if other images are added or removed. It consists of letters only: SQLite then
sorts products as the tables do, and no spreadsheet parses an id as a number.
"""

import hashlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import groupby
from pathlib import PurePosixPath
from typing import Final, Literal

from skincare import image_names
from skincare.errors import StageError
from skincare.importing.category_names import normalised
from skincare.importing.import_state import ImportState
from skincare.importing.numbered_names import split_number
from skincare.tables import natural_key
from skincare.urls import safe_name

GroupBy = Literal["auto", "column", "folder", "pattern", "near-duplicates", "none"]

# A product has a dozen photos at most; a longer series is a collection with consecutive numbers.
_MAX_NUMBERED: Final = 12
# Minimum number of series for `--group-by auto`; fewer may be coincidence.
_MIN_SERIES: Final = 2
_HOST: Final = "import.invalid"  # .invalid never resolves: RFC 2606
_MAX_NAME: Final = 200
# No vowels, so that no id is a word.
_LETTERS: Final = str.maketrans("0123456789abcdef", "bcdfghjkmnpqrstv")


@dataclass(frozen=True)
class Grouping:
    """The method of grouping and its reason; `pattern` is the user's regular expression, empty for numbered names."""

    by: GroupBy
    why: str
    pattern: str = ""


def choose_grouping(by: GroupBy, pattern: str, columns: Mapping[str, str], state: ImportState) -> Grouping:
    """Return the grouping; `auto` selects the first applicable of column, folder, numbered names and near-duplicates.

    Raises StageError for a method that the source does not support.
    """
    if pattern:
        _check_pattern(by, pattern)
        return Grouping("pattern", f"the file-name pattern {pattern}", pattern)
    if by == "column" and "product" not in columns:
        raise StageError("--group-by column needs a column of products; name it with --columns product NAME")
    if by != "auto":
        return Grouping(by, "chosen by --group-by")
    if "product" in columns:
        return Grouping("column", f"the column {columns['product']}")
    if state.one("select 1 from entries where reason = '' and folder <> '' limit 1"):
        return Grouping("folder", "folders lie below those of the categories")
    n_series = sum(1 for _ in _series(state))
    if n_series >= _MIN_SERIES:
        return Grouping("pattern", f"{n_series} series of numbered file names")
    return Grouping("near-duplicates", "neither a column nor folders nor file names identify the products")


def _check_pattern(by: GroupBy, pattern: str) -> None:
    try:
        found = re.compile(pattern)
    except re.error as error:
        raise StageError(f"--product-pattern {pattern!r}: {error}") from error
    if by not in ("auto", "pattern"):
        raise StageError(f"--product-pattern and --group-by {by} contradict each other")
    if not found.groups:
        raise StageError(f"--product-pattern {pattern!r} needs a group in parentheses that names the product")


def _series(state: ImportState) -> Iterator[str]:
    """Yield the common parts of numbered file names that identify a product.

    Their numbers start at 0 or 1 without a gap (the first may be a name without a number), there are a dozen at most,
    and the common part is not the name of the category.
    """
    rows = state.rows("select base, number, label from entries where number >= 0 and reason = '' order by base, number")
    for base, group in groupby(rows, key=lambda row: row[0]):
        found = [(number, label) for _, number, label in group]
        numbers = {number for number, _ in found}
        is_bare = state.one("select 1 from entries where stem = ? and reason = '' limit 1", base) is not None
        expected = set(range(min(numbers), max(numbers) + 1))
        starts_well = min(numbers) <= 1 or (min(numbers) == 2 and is_bare)
        is_long_enough = len(numbers) + is_bare >= 2
        is_category = normalised(base.rpartition("/")[2]) == normalised(found[0][1])
        if numbers == expected and starts_well and is_long_enough and len(found) <= _MAX_NUMBERED and not is_category:
            yield base


def assign_products(grouping: Grouping, state: ImportState, source_name: str) -> None:
    """Store product, number and file name of every entry that can be imported."""
    state.change_all("update entries set key = ? where position = ?", _keys(grouping, state))
    _refuse_conflicts(state)
    _number(state)
    _name_products(state, source_name)


def _keys(grouping: Grouping, state: ImportState) -> Iterator[tuple[str, int]]:
    """Yield the product key of each entry."""
    series = set(_series(state)) if grouping.by == "pattern" and not grouping.pattern else set()
    columns = (
        "place, label, folder, product, base, stem, (select groups.key from groups where groups.place = entries.place)"
    )
    for position, place, label, folder, product, base, stem, group in state.by_position(columns):
        own = f"image {place}"
        if grouping.by == "column" and product:
            yield f"product {product}", position
        elif grouping.by == "folder" and folder:
            yield f"folder {label}/{folder}", position
        elif grouping.pattern:
            found = re.search(grouping.pattern, PurePosixPath(place).name)
            yield (f"pattern {label}/{found[1]}" if found and found[1] else own), position
        elif base in series or stem in series:
            yield f"series {base if base in series else stem}", position
        else:
            yield (group if grouping.by == "near-duplicates" and group else own), position


def _refuse_conflicts(state: ImportState) -> None:
    """Reject images of a product with another category than its first image."""
    state.change(
        "update entries set reason = 'conflicting_category', "
        "detail = entries.label || ', but its product is ' || first.label "
        "from (select key, label, min(position) from entries where reason = '' group by key) as first "
        "where entries.key = first.key and entries.label <> first.label and entries.reason = ''"
    )


def _number(state: ImportState) -> None:
    """Assign every image a number within its product: its previous one, else the next."""
    rows = state.rows("select key, entries.place, position from entries where reason = '' order by key, position")
    for key, group in groupby(rows, key=lambda row: row[0]):
        product_id = product_id_of(key)
        known = dict(state.rows("select place, n from numbers where product_id = ?", product_id))
        latest = max(known.values(), default=0)
        for _, place, position in sorted(group, key=lambda row: natural_key(row[1])):
            if place not in known:
                latest += 1
                known[place] = latest
                state.change("insert into numbers values (?, ?, ?)", product_id, place, latest)
            state.change(
                "update entries set product_id = ?, n = ? where position = ?", product_id, known[place], position
            )


def product_id_of(key: str) -> str:
    """Return the product id of a product key: 64 bits in 16 letters."""
    return hashlib.sha256(key.encode()).hexdigest()[:16].translate(_LETTERS)


def _name_products(state: ImportState, source_name: str) -> None:
    """Store the products; one without a name is named after its first file and its unique id."""
    state.change("delete from products")
    host = f"{safe_name(source_name).replace('.', '-')[:40].strip('-')}.{_HOST}"
    rows = state.rows("select product_id, label, place, name from entries where reason = '' order by product_id, n")
    for product_id, group in groupby(rows, key=lambda row: row[0]):
        images = list(group)
        _, label, place, _ = images[0]
        stated = next((name for *_, name in images if name), "")[:_MAX_NAME]
        file_name = split_number(PurePosixPath(place).stem)[0][:_MAX_NAME]
        slug = safe_name(stated or file_name)
        url = f"https://{host}/{product_id}/{slug}"
        name = stated or f"{file_name} {product_id}"
        state.change("insert into products values (?, ?, ?, ?, ?)", product_id, label, name, slug, url)
    columns = "(select slug from products where products.product_id = entries.product_id), product_id, n"
    for position, slug, product_id, n in state.by_position(columns):
        file = image_names.file_name(slug, product_id, n)
        state.change("update entries set file = ? where position = ?", file, position)
