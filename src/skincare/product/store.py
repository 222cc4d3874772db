"""The table of products' facts: one JSON line per product, in the order of their ids.

    {"product_id": "11396687", "product": {"category": "Oil", "size": "50 ml"},
     "sources": {"category": "catalogue", "size": "name"}, "absent": {"origin": "pack"}}

`sources` has the source of each value, `absent` that of each statement that the product has no such value; without such
statements a line has no `absent`.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pydantic import ValidationError

from skincare.errors import MissingInputError, StageError
from skincare.files import replacing
from skincare.product.facts import ProductFacts
from skincare.product.schema import FIELDS, Product
from skincare.tables import natural_key

_REMEDY: Final = "Make it with `python src/product_facts.py`."


@dataclass(frozen=True)
class KnownProduct:
    """One product of the catalogue and what is known of it."""

    product_id: str
    facts: ProductFacts


def write_products(path: Path, rows: Iterable[KnownProduct]) -> None:
    """Replace the table: the same rows give the same bytes."""
    with replacing(path) as temporary, temporary.open("w", encoding="utf-8", newline="\n") as file:
        for row in sorted(rows, key=lambda row: natural_key(row.product_id)):
            values = row.facts.product.model_dump(mode="json", exclude_none=True)
            line = {"product_id": row.product_id, "product": values, "sources": dict(sorted(row.facts.sources.items()))}
            if row.facts.absent:
                line["absent"] = dict(sorted(row.facts.absent.items()))
            file.write(json.dumps(line, ensure_ascii=False) + "\n")


def read_products(path: Path) -> dict[str, ProductFacts]:
    """Return product id -> facts, in file order.

    Raises MissingInputError where the file is absent, StageError naming file and line where it is malformed.
    """
    if not path.is_file():
        raise MissingInputError("facts of the products", path, _REMEDY)
    found: dict[str, ProductFacts] = {}
    # Not splitlines(): a text may hold U+2028, which JSON leaves as it is.
    for number, line in enumerate(path.read_bytes().split(b"\n"), start=1):
        if not line.strip():
            continue
        try:
            product_id, facts = _parse(json.loads(line))
        except (ValueError, TypeError, KeyError, RecursionError, ValidationError) as error:
            raise StageError(f"{path}, line {number}: {error}\n{_REMEDY}") from error
        if product_id in found:
            raise StageError(f"{path}, line {number}: product {product_id} is in the table twice\n{_REMEDY}")
        found[product_id] = facts
    return found


def read_absent_fields(path: Path) -> dict[str, frozenset[str]]:
    """Return product id -> fields that the product is known to lack; empty without the table."""
    return {one: frozenset(facts.absent) for one, facts in read_products(path).items()} if path.is_file() else {}


def check_fields(fields: Sequence[str]) -> None:
    """Raise StageError for fields that do not exist, or without the category, by which the split is stratified."""
    if unknown := [one for one in fields if one not in FIELDS]:
        raise StageError(f"--fields {', '.join(unknown)}: the fields are {', '.join(FIELDS)}")
    if "category" not in fields:
        raise StageError("--fields must contain category: the metrics of training and the splits need it")


def structured_answers(path: Path, categories: Mapping[str, str], fields: Sequence[str] = FIELDS) -> dict[str, str]:
    """Return product id -> answer as JSON for products given with their categories; other fields than these are null.

    Raises StageError where the facts of a product are absent or of another category.
    """
    facts = read_products(path)
    outdated = sorted(
        one for one, category in categories.items() if one not in facts or facts[one].product.category != category
    )
    if outdated:
        raise StageError(
            f"{path}: the facts of {len(outdated)} of {len(categories)} products are missing or of another category, "
            f"such as {outdated[0]}\n{_REMEDY}"
        )
    others = dict.fromkeys(set(FIELDS) - set(fields))
    return {one: facts[one].product.model_copy(update=others).to_json() for one in categories}


def _parse(line: Mapping[str, Mapping[str, str]]) -> tuple[str, ProductFacts]:
    product, sources = Product.model_validate(line["product"]), dict(line["sources"])
    absent = dict(line.get("absent", {}))
    known = {field for field, value in product.model_dump().items() if value is not None}
    if known != set(sources):
        raise ValueError(f"values and sources differ in {', '.join(sorted(known ^ set(sources)))}")
    if wrong := sorted(set(absent) - (set(FIELDS) - known)):
        raise ValueError(f"absent are fields that have a value or do not exist: {', '.join(wrong)}")
    return str(line["product_id"]), ProductFacts(product, sources, absent)
