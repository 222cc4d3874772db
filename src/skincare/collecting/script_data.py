"""Decoding of JSON and JavaScript literals in scripts, and the variants of a ProductGroup.

Total: input that cannot be decoded gives None or is skipped.
"""

import json
from typing import Any, Final

import chompjs

_MAX_LITERAL: Final = 1_000_000


def parse_literal(text: str, start: int) -> Any:
    """Decode the JavaScript literal that begins at `start`; None if it is invalid."""
    try:
        return json.JSONDecoder(strict=False).raw_decode(text, start)[0]
    except (ValueError, RecursionError):
        pass
    try:
        return chompjs.parse_js_object(text[start : start + _MAX_LITERAL], loader_kwargs={"strict": False})
    except (ValueError, RecursionError):
        return None


def variants(product: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the members of a ProductGroup; an empty list for a single product."""
    members = product.get("hasVariant")
    return [one for one in (members if isinstance(members, list) else [members]) if isinstance(one, dict)]
