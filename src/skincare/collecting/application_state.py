"""Products in the application state of a page's scripts: __NEXT_DATA__, initial states, dataLayer.

Keys are not standardised; the lists below hold common ones. An object with a name and a price or a brand is the product
if its name or URL matches the page.
"""

import re
from collections.abc import Callable, Iterator
from typing import Any, Final

from skincare.collecting.html_page import HtmlPage
from skincare.collecting.structured_data import Block, parse_literal

_MAX_TEXT: Final = 3_000_000  # characters of scripts that are decoded
_MAX_STATES: Final = 25
_MAX_OBJECTS: Final = 60_000
_MIN_MATCH: Final = 0.6
_ASSIGNED: Final = re.compile(r"(?:[\w$\])'\"]\s*=|\.push\(|JSON\.parse\()\s*(?=[{\[])")
_PRODUCT_KEY: Final = re.compile(r"(?:[Pp]rice|PRICE|[Bb]rand|BRAND)\w{0,20}[\"']?\s*:")
_NAME_KEYS: Final = (
    "name", "title", "productName", "product_name", "productTitle", "displayName", "itemName", "item_name",
)  # fmt: skip
_BRAND_KEYS: Final = (
    "brand", "brandName", "brand_name", "productBrand", "manufacturer", "vendor", "item_brand", "designer",
)  # fmt: skip
_PRICE_KEYS: Final = (
    "salePrice", "sale_price", "specialPrice", "special_price", "finalPrice", "final_price", "currentPrice",
    "current_price", "sellingPrice", "selling_price", "discountedPrice", "offerPrice", "priceNow", "price",
    "productPrice",
    "product_price", "priceInfo", "prices", "pricing", "unitPrice", "regularPrice", "listPrice", "amount",
)  # fmt: skip
_INNER_KEYS: Final = (
    "current", "now", "sale", "special", "final", "selling", "value", "amount", "price", "salePrice", "finalPrice",
    "currentPrice", "regular", "list", "original", "min", "minPrice",
)  # fmt: skip
_CURRENCY_KEYS: Final = ("priceCurrency", "currency", "currencyCode", "currency_code", "currencyIsoCode")


def state_products(page: HtmlPage, match_of: Callable[[HtmlPage, Block], float]) -> list[tuple[Block, float]]:
    """Return the best matching product as a schema.org block with its match; at most one."""
    best: tuple[float, int, Block] | None = None
    for value in _states(page):
        for found in _objects(value):
            block = _as_product(found)
            match = match_of(page, block) if block else 0.0
            n_known = len(block)
            if block and match >= _MIN_MATCH and (best is None or (match, n_known) > best[:2]):
                best = (match, n_known, block)
    return [(best[2], best[0])] if best else []


def _states(page: HtmlPage) -> Iterator[Any]:
    """Yield the values of scripts that hold JSON or JavaScript literals with product keys."""
    n_left, budget = _MAX_STATES, _MAX_TEXT
    for script in page.tagged("script"):
        text, kind = page.source_of(script), script.get("type").lower()
        if "ld+json" in kind or len(text) < 30 or budget <= 0 or not _PRODUCT_KEY.search(text):
            continue
        budget -= len(text)
        starts = [0] if "json" in kind else [found.end() for found in _ASSIGNED.finditer(text)]
        after = 0
        for start in starts:
            # Skip starts inside a decoded value.
            if start < after or n_left <= 0:
                continue
            product_key = _PRODUCT_KEY.search(text, start)
            if not product_key:
                break
            if product_key.start() - start > 20_000:
                continue
            n_left -= 1
            value = parse_literal(text[: start + 1_500_000], start)
            if value is not None:
                after = start + 200
                yield value


def _objects(value: Any) -> Iterator[dict[str, Any]]:
    waiting, n_seen = [value], 0
    while waiting and n_seen < _MAX_OBJECTS:
        one = waiting.pop()
        n_seen += 1
        if isinstance(one, dict):
            yield one
            waiting.extend(inner for inner in one.values() if isinstance(inner, dict | list))
        elif isinstance(one, list):
            waiting.extend(inner for inner in one[:500] if isinstance(inner, dict | list))


def _as_product(found: dict[str, Any]) -> Block:
    name = next((found[key] for key in _NAME_KEYS if isinstance(found.get(key), str) and found[key].strip()), "")
    if not name:
        return {}
    price = next((value for key in _PRICE_KEYS if (value := _number(found.get(key)))), None)
    brand = next((value for key in _BRAND_KEYS if (value := _text(found.get(key)))), "")
    if price is None and not brand:
        return {}
    currency = next((found[key] for key in _CURRENCY_KEYS if isinstance(found.get(key), str)), "")
    offer = {"price": price, "priceCurrency": currency} if price else {}
    block = {"name": name, "brand": brand, "offers": offer, "url": found.get("url"), "image": _image(found)}
    return {key: value for key, value in block.items() if value}


def _number(value: Any) -> Any:
    if isinstance(value, dict):
        return next((inner for key in _INNER_KEYS if (inner := _plain(value.get(key)))), None)
    return _plain(value)


def _plain(value: Any) -> Any:
    if isinstance(value, bool):
        return None
    if isinstance(value, int | float):
        return value if value > 0 else None
    return value if isinstance(value, str) and re.search("[1-9]", value) and len(value) < 40 else None


def _text(value: Any) -> str:
    if isinstance(value, dict):
        value = next((value[key] for key in ("name", "title", "label", "displayName") if key in value), "")
    return value.strip() if isinstance(value, str) and 1 < len(value.strip()) < 80 else ""


def _image(found: dict[str, Any]) -> Any:
    return next((found[key] for key in ("images", "image", "imageUrl", "image_url") if found.get(key)), None)
