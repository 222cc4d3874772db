"""Product metadata: one fact per field, each with its source.

Raw values are untrusted: they may hold tags, doubly encoded entities, control characters and megabytes of text. Cleaned
values are plain text of bounded length. A field without a value is absent, never guessed.

    {"brand": Fact("Weleda", "json_ld"), "size": Fact("75ml", "name")}
"""

import html
import math
import re
import unicodedata
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from skincare.collecting.amounts import MAX_AMOUNT, amount_of, amounts_in, currency_in

# Maximum lengths, in column order. Price and currency always have the same source.
LIMITS: Final[dict[str, int]] = {
    "name": 300,
    "brand": 200,
    "price": 12,
    "currency": 3,
    "description": 4000,
    "size": 100,
    "ingredients": 8000,
    "how_to_use": 4000,
    "country": 100,
    "manufacturer": 300,
}
FIELDS: Final = tuple(LIMITS)

_MAX_READ: Final = 100_000  # characters of a value; the rest is ignored
_HIDING: Final = re.compile(r"(?i)<(script|style)\b[^<>]*>|</(script|style)\s*>|<!--|-->")
_TAG: Final = re.compile(r"<[a-zA-Z/!?][^<>]*>")


@dataclass(frozen=True)
class Fact:
    """The value of one field and where it was read: json_ld, microdata, rdfa, open_graph, state, page, name or api."""

    value: str
    source: str


Metadata = Mapping[str, Fact]


def merge(offers: Iterable[tuple[str, Mapping[str, Any]]]) -> dict[str, Fact]:
    """Return the first usable fact of each field, from pairs of source and {field: raw value}."""
    facts: dict[str, Fact] = {}
    for source, values in offers:
        for field in FIELDS:
            if field in facts or field == "currency":
                continue
            if value := clean(field, values.get(field)):
                facts[field] = Fact(value, source)
                if field == "price" and (currency := _currency_of(values)):
                    facts["currency"] = Fact(currency, source)
    return {field: facts[field] for field in FIELDS if field in facts}


def clean(field: str, value: Any) -> str:
    """Return the cleaned value of a field; empty if the raw value is unusable."""
    special: dict[str, Callable[[Any], str]] = {"price": clean_price, "currency": clean_currency}
    return special[field](value) if field in special else clean_text(value, LIMITS[field])


def clean_text(value: Any, limit: int) -> str:
    """Return a text or number as one line of plain text of at most `limit` characters."""
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return ""
    text = (value if isinstance(value, str) else _digits(value))[:_MAX_READ]
    # Real pages encode entities up to three times; each layer can contain tags.
    for _ in range(3):
        text = _TAG.sub(" ", _shown(html.unescape(text)))
    visible = "".join(_visible(character) for character in text)
    return _shortened(" ".join(visible.split()), limit)


def _shown(text: str) -> str:
    """Remove scripts, styles and comments; an unclosed one extends to the end."""
    kept, start, end = [], 0, ""
    for mark in _HIDING.finditer(text):
        found = mark.group().lower()
        if not end and not found.startswith(("</", "-->")):
            kept.append(text[start : mark.start()])
            end = f"</{mark.group(1).lower()}" if mark.group(1) else "-->"
        elif end and found.startswith(end):
            start, end = mark.end(), ""
    return " ".join([*kept, "" if end else text[start:]])


def clean_price(value: Any) -> str:
    """Return an amount as `35.00`; empty for none, several, or an amount out of range.

    >>> clean_price("£1,299.00"), clean_price("12,50 €"), clean_price("10.00 - 15.00")
    ('1299.00', '12.50', '')
    """
    amount = value if isinstance(value, int | float) and not isinstance(value, bool) else _amount_in(value)
    return f"{amount:.2f}" if amount is not None and 0.005 <= amount < MAX_AMOUNT else ""


def clean_currency(value: Any) -> str:
    """Return a code of three capital letters; otherwise empty."""
    text = clean_text(value, 10).upper()
    return text if re.fullmatch(r"[A-Z]{3}", text) else ""


def _currency_of(values: Mapping[str, Any]) -> str:
    """Return the currency of the values, or that of the sign next to the price."""
    return clean_currency(values.get("currency")) or currency_in(clean_text(values.get("price"), 200))


def _amount_in(value: Any) -> float | None:
    """Return the only amount of a text; None if the text holds other digits or a minus sign before it."""
    text = clean_text(value, 100)
    found = amounts_in(text)
    if len(found) != 1 or "-" in text[: found[0].start()]:
        return None
    if re.search("[0-9]", text[: found[0].start()] + text[found[0].end() :]):
        return None
    amount = amount_of(found[0].group())
    return float(amount) if amount is not None else None


def _digits(number: float) -> str:
    # Python refuses to convert integers with thousands of digits to text.
    if isinstance(number, int):
        return str(number) if abs(number) < 10**15 else ""
    return f"{number:.10g}" if math.isfinite(number) else ""


def _visible(character: str) -> str:
    """Return a space for a control character, an empty string for invisible characters and lone surrogates."""
    category = unicodedata.category(character)
    if category == "Cc":
        return " "
    return "" if category.startswith("C") else character


def _shortened(text: str, limit: int) -> str:
    return text if len(text) <= limit else f"{text[: limit - 1].rstrip()}…"
