"""Data that a page carries for machines: JSON-LD blocks and literals of its scripts, in whatever shape they come.

Total: anything that cannot be decoded is None or left out.
"""

import json
from typing import Any, Final

import chompjs
from bs4 import BeautifulSoup

_MAX_LITERAL: Final = 1_000_000


def literal(text: str, start: int) -> Any:
    """Decode the JavaScript literal that begins at `start`; None where that is not possible."""
    try:
        return json.JSONDecoder(strict=False).raw_decode(text, start)[0]
    except (ValueError, RecursionError):
        pass
    try:
        return chompjs.parse_js_object(text[start : start + _MAX_LITERAL], loader_kwargs={"strict": False})
    except (ValueError, RecursionError):
        return None


def json_ld_products(soup: BeautifulSoup) -> list[dict[str, Any]]:
    """Return the page's Product and ProductGroup blocks, not those of a list of other products."""
    waiting = [_json(tag.get_text()) for tag in soup.select('script[type="application/ld+json"]')][::-1]
    products = []
    while waiting:
        block = waiting.pop()
        if isinstance(block, list):
            waiting.extend(reversed(block))
        elif isinstance(block, dict):
            types = block.get("@type")
            if {"Product", "ProductGroup"}.intersection(map(str, types if isinstance(types, list) else [types])):
                products.append(block)
            waiting.extend(block[key] for key in ("mainEntity", "@graph") if key in block)
    return products


def variants(product: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the members of a ProductGroup; an empty list for a single product."""
    members = product.get("hasVariant")
    return [one for one in (members if isinstance(members, list) else [members]) if isinstance(one, dict)]


def _json(text: str) -> Any:
    try:
        return json.loads(text, strict=False)
    except (ValueError, RecursionError):
        return literal(text, 0)
