"""Reading a structured answer: the model's text in, a product and what had to be done to read it out.

A model that generates freely writes JSON as people do: in a code fence, with single quotes or trailing commas, and cut
off where its tokens end. What can be read is kept, field by field, and the status says how.
"""

import json
import re
from dataclasses import dataclass
from typing import Any, Final, Literal

import json_repair

from skincare.product.schema import FIELDS, Product, invalid_fields

# valid: JSON that fits the schema as it is. repaired: fits after its syntax was mended, or without what does not fit.
# truncated: the text ends inside the object. invalid: no object, or none of its fields can be used. empty: no text.
JsonStatus = Literal["valid", "repaired", "truncated", "invalid", "empty"]

_MAX_CHARACTERS: Final = 50_000
_FENCE: Final = re.compile(r"^\s*```[a-zA-Z]*\s*|\s*```\s*$")
_NULLS: Final = frozenset(["", "null", "none", "n/a", "na", "unknown", "not specified", "not visible", "-"])


@dataclass(frozen=True)
class ParsedProduct:
    """A product read from an answer. errors: field -> why its value was left out."""

    product: Product | None
    status: JsonStatus
    errors: dict[str, str]


def parse_product(text: str) -> ParsedProduct:
    """Return the product of an answer's text; its `product` is None where nothing can be used."""
    text = text[:_MAX_CHARACTERS]
    if not text.strip():
        return ParsedProduct(None, "empty", {})
    values = _strict_object(text)
    if values is not None and not invalid_fields(values) and tuple(values) == FIELDS:
        return ParsedProduct(Product.model_validate(values), "valid", {})
    values = values if values is not None else _repaired_object(text)
    if values is None:
        return ParsedProduct(None, "invalid", {})
    values = {field: _normalised(field, value) for field, value in values.items()}
    errors = invalid_fields(values)
    kept = {field: value for field, value in values.items() if field in FIELDS and field not in errors}
    if not kept:
        return ParsedProduct(None, "invalid", errors)
    return ParsedProduct(Product.model_validate(kept), "truncated" if _is_cut_off(text) else "repaired", errors)


def _strict_object(text: str) -> dict[str, Any] | None:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def _repaired_object(text: str) -> dict[str, Any] | None:
    """Return the object that the text holds after mending its syntax; of several, the first."""
    start = text.find("{")
    if start < 0:
        return None
    try:
        # What follows the first object is not part of the answer.
        found, _ = json.JSONDecoder().raw_decode(text, start)
    except (ValueError, RecursionError):
        try:
            found = json_repair.loads(text[start:], skip_json_loads=True)
        except (ValueError, RecursionError):
            return None
    if isinstance(found, list):
        found = next((one for one in found if isinstance(one, dict)), None)
    return found if isinstance(found, dict) else None


def _normalised(field: str, value: Any) -> Any:
    """Return a value as the schema has it where that loses nothing: words for null, one ingredient as a list."""
    if isinstance(value, str):
        value = value.strip()
        if value.lower() in _NULLS:
            return None
        if field == "ingredients":
            return [part for one in value.split(",") if (part := one.strip())]
    if isinstance(value, int | float) and not isinstance(value, bool) and field == "size":
        return f"{value:g}"
    if field == "ingredients" and isinstance(value, list):
        texts = [one.strip() for one in value if isinstance(one, str) and one.strip()]
        return texts or None
    return value


def _is_cut_off(text: str) -> bool:
    """Tell whether the text ends before the object is closed."""
    body = _FENCE.sub("", text).rstrip()
    depth, in_string, escaped = 0, "", False
    for character in body[body.find("{") :]:
        if escaped:
            escaped = False
        elif in_string:
            escaped = character == "\\"
            in_string = "" if character == in_string else in_string
        elif character == '"':
            in_string = character
        elif character in "{[":
            depth += 1
        elif character in "}]":
            depth -= 1
            if depth == 0:
                return False
    return True
