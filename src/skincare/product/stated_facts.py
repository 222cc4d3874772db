"""Facts that the user states: csv_data/stated_facts.csv in, statements by product out.

    product_id,field,value,source
    11396687,size,50 ml,pack
    11396687,origin,-,pack

A statement precedes every other source. The value `-` states that the product has none, so that a predicted value is an
invention. A field that the user does not know has no row.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from skincare.errors import StageError
from skincare.product.facts import Statement, shortened, split_ingredients
from skincare.product.schema import FIELDS, invalid_fields
from skincare.product.sizes import parse_size
from skincare.tables import STATED_FACTS, StatedFactRow

ABSENT: Final = "-"
# The category is the label that the dataset has.
STATED_FIELDS: Final = tuple(field for field in FIELDS if field != "category")

_PARSERS: Final[dict[str, Callable[[str], Any]]] = {
    "details": shortened,
    "howToUse": shortened,
    "ingredients": split_ingredients,
    "size": lambda text: str(parse_size(text) or "") or None,
}


def read_stated_facts(path: Path) -> dict[str, list[Statement]]:
    """Return product id -> statements; empty without the table.

    Raises StageError naming the product and the field of an invalid or repeated row.
    """
    if not path.is_file():
        return {}
    found: dict[str, list[Statement]] = {}
    for row in STATED_FACTS.rows(path):
        where = f"{path}: product {row.product_id!r}, field {row.field!r}"
        statements = found.setdefault(row.product_id, [])
        if any(one.field == row.field for one in statements):
            raise StageError(f"{where}: stated twice")
        try:
            statements.append(_statement(row))
        except ValueError as error:
            raise StageError(f"{where}: {error}\n{STATED_FACTS.remedy}") from error
    return found


def _statement(row: StatedFactRow) -> Statement:
    """Return the statement of a row; raises ValueError for an unknown field, or a value that is none of its kind."""
    text, source = " ".join(row.value.split()), " ".join(row.source.split())
    if row.field not in STATED_FIELDS:
        raise ValueError(f"the fields are {', '.join(STATED_FIELDS)}")
    if not source:
        raise ValueError("the source is empty")
    if not text:
        raise ValueError(
            f"the value is empty; {ABSENT} states that there is none, a value that is not known has no row"
        )
    if text == ABSENT:
        return Statement(row.field, None, source)
    value = _PARSERS.get(row.field, str)(text)
    if value is None:
        raise ValueError(f"{text[:100]!r} is no {row.field}")
    if errors := invalid_fields({row.field: value}):
        raise ValueError(f"{text[:100]!r}: {errors[row.field]}")
    return Statement(row.field, value, source)
