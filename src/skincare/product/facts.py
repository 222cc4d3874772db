"""What is known of a product, field by field, and where it is from: statements of sources in, a `Product` out.

Sources, in order of precedence: what the user states (`skincare.product.stated_facts`), what the shop's page states
(`json_ld`, `page`, ...: the collector recorded which), the catalogue, what the words of name, directions and
description state, and brands that names share (`name_prefix`) or that are well known (`known_brand`).

A field is None for one of two reasons. Either a source states that the product has no such value: the field is absent,
and a predicted value is an invention. Or no source states anything: the field is not scored. Nothing is guessed.
"""

import ast
import dataclasses
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from skincare.product.brands import begins_with
from skincare.product.origin import stated_origin
from skincare.product.schema import MAX_INGREDIENTS, Product
from skincare.product.sizes import parse_size
from skincare.product.use_time import use_time_in_directions, use_time_in_name
from skincare.tables import CatalogueRow, MetadataRow

# Long texts are cut to whole sentences of about this many characters: an answer has to end within its tokens.
MAX_TEXT_CHARACTERS: Final = 200
# INCI lists are in the order of quantity down to 1 %: the first ones are what tells products apart.
N_INGREDIENTS: Final = 10

_MAX_LIST_CHARACTERS: Final = 20_000
_LIST_MARKS: Final = re.compile(r"[()]|,(?!\d)|;|•")


class Statement(NamedTuple):
    """The value of a field by a source; None states that the product has no such value."""

    field: str
    value: Any | None
    source: str


@dataclass(frozen=True)
class ProductFacts:
    """A product with the source of each value.

    absent: field -> source of the statement that the product has no such value; these fields are None.
    """

    product: Product
    sources: Mapping[str, str]
    absent: Mapping[str, str] = dataclasses.field(default_factory=dict)


def product_facts(
    category: str,
    catalogue: CatalogueRow | None = None,
    metadata: MetadataRow | None = None,
    brand_in_names: str = "",
    known_brand: str = "",
    stated: Sequence[Statement] = (),
) -> ProductFacts:
    """Return what is known of a product.

    category: the label that the dataset has for it. brand_in_names: its brand by the names of the catalogue
    (`skincare.product.brands.brands_of`), known_brand: the well-known brand that its name begins with, if any.
    stated: what the user states, at most one value per field and none for the category.
    """
    absent = {one.field: one.source for one in stated if one.value is None}
    candidates: list[tuple[str, Any, str]] = [("category", category, "catalogue"), *stated]
    if metadata:
        candidates += _stated(metadata)
    if catalogue:
        candidates += [
            ("name", _line(catalogue.product_name), "catalogue"),
            ("ingredients", _catalogue_ingredients(catalogue.clean_ingreds), "catalogue"),
        ]
    name = next((value for field, value, _ in candidates if field == "name" and value), "")
    candidates += [
        ("size", str(parse_size(name) or ""), "name"),
        ("forNightOrMorning", use_time_in_name(name), "name"),
        # Of a brand and one of its lines ("Lumene Nordic") the brand.
        ("brand", "" if begins_with(brand_in_names, known_brand) else brand_in_names, "name_prefix"),
        ("brand", known_brand, "known_brand"),
    ]
    if metadata:
        candidates += [
            ("forNightOrMorning", use_time_in_directions(metadata.how_to_use), "directions"),
            ("origin", stated_origin(metadata.description), "description"),
        ]
    values, sources = _first_values(one for one in candidates if one[0] not in absent)
    return ProductFacts(Product.model_validate(values), sources, absent)


def _first_values(candidates: Iterable[tuple[str, Any, str]]) -> tuple[dict[str, Any], dict[str, str]]:
    """Return field -> value and field -> source of the first candidate with a value."""
    values: dict[str, Any] = {}
    sources: dict[str, str] = {}
    for field, value, source in candidates:
        if value and field not in values:
            values[field], sources[field] = value, source
    return values, sources


def _stated(row: MetadataRow) -> list[tuple[str, Any, str]]:
    """Return (field, value, source) of what the product's page states."""
    source = dict(part.split("=", 1) for part in row.sources.split() if "=" in part)
    stated = {
        "brand": row.brand,
        "country": row.country,
        "details": shortened(row.description),
        "howToUse": shortened(row.how_to_use),
        "ingredients": split_ingredients(row.ingredients),
        "manufacturer": row.manufacturer,
        "name": row.name,
        "size": str(parse_size(row.size) or ""),
    }
    column = {"details": "description", "howToUse": "how_to_use"}
    return [(field, value, source.get(column.get(field, field), row.source)) for field, value in stated.items()]


def shortened(text: str, limit: int = MAX_TEXT_CHARACTERS) -> str:
    """Return the first whole sentences of a text that fit the limit; of a longer first sentence, its first words."""
    text = _line(text)
    if len(text) <= limit:
        return text
    cut = text[: limit + 1]
    ends = [match.end() for match in re.finditer(r"[.!?](?=\s)", cut)]
    if ends:
        return cut[: ends[-1]].strip()
    return cut[:limit].rsplit(" ", 1)[0].strip() if " " in cut[:limit] else cut[:limit]


def _line(text: str) -> str:
    return " ".join(text.split())


def _catalogue_ingredients(text: str) -> tuple[str, ...] | None:
    """Return the first ingredients of the catalogue's column, a Python list written as text."""
    try:
        found = ast.literal_eval(text) if len(text) <= _MAX_LIST_CHARACTERS else None
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return None
    if not isinstance(found, list):
        return None
    return _first_ingredients([one for one in found if isinstance(one, str)])


def split_ingredients(text: str) -> tuple[str, ...] | None:
    """Return the first ingredients of a list in prose; commas inside brackets and of "1,2-hexanediol" do not split."""
    without_lead = re.sub(r"^\s*(?:full\s+)?(?:ingredients|inci)\s*(?:list)?\s*:\s*", "", text, flags=re.IGNORECASE)
    return _first_ingredients(_split(without_lead))


def _split(text: str) -> list[str]:
    """Split a list in prose; from its end, so that a separator is inside brackets if a closing one comes next."""
    parts, end, bracket = [], len(text), ""
    for mark in reversed(list(_LIST_MARKS.finditer(text))):
        if mark[0] in "()":
            bracket = mark[0]
        elif bracket != ")":
            parts.append(text[mark.end() : end])
            end = mark.start()
    return [text[:end], *reversed(parts)]


def _first_ingredients(parts: list[str]) -> tuple[str, ...] | None:
    cleaned = [_line(part).strip(" .*") for part in parts]
    return tuple([one[:200] for one in dict.fromkeys(cleaned) if one][: min(N_INGREDIENTS, MAX_INGREDIENTS)]) or None
