"""Selection of the page's own product from its structured data, and the values of that product.

Structured data may also describe related and listed products. The page's own product is the one whose name matches the
main heading or whose URL is the page's. Several products without a match are a listing.
"""

import contextlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any, Final
from urllib.parse import unquote, urlsplit

from skincare import urls
from skincare.collecting.application_state import state_products
from skincare.collecting.html_page import HtmlPage
from skincare.collecting.metadata import clean, clean_text
from skincare.collecting.structured_data import (
    Block,
    is_product,
    json_ld_blocks,
    microdata_blocks,
    rdfa_blocks,
    types_of,
    variants,
)

_MAX_PRODUCTS: Final = 300
_MAX_OFFERS: Final = 100
_MATCH: Final = 0.5
# Types that have offers without being the product of the page.
_NOT_PRODUCT_TYPES: Final = frozenset({
    "organization", "corporation", "onlinestore", "store", "website", "webpage", "searchresultspage",
    "collectionpage", "itemlist", "offercatalog", "breadcrumblist", "aggregateoffer", "offer",
    "offershippingdetails", "article", "newsarticle", "blogposting", "recipe",
})  # fmt: skip


@dataclass(frozen=True)
class StructuredProduct:
    """The page's product in one syntax; `match` from 0 to 1 is the overlap of its name or URL with the page."""

    source: str
    block: Block
    match: float


@dataclass(frozen=True)
class StructuredData:
    """The page's product in each syntax, all schema types, and whether a syntax lists products without a match."""

    products: tuple[StructuredProduct, ...]
    is_list: bool = False
    types: frozenset[str] = frozenset()


def read_structured_data(page: HtmlPage) -> StructuredData:
    """Return the structured data of a page: JSON-LD, microdata, RDFa, then application state."""
    found, is_list = [], False
    types: set[str] = set()
    for source, blocks in (
        ("json_ld", json_ld_blocks(page)),
        ("microdata", microdata_blocks(page)),
        ("rdfa", rdfa_blocks(page)),
    ):
        products = list(islice(_sold(blocks), _MAX_PRODUCTS))
        types.update(*(types_of(block) for block in blocks))
        own = _own(page, source, products)
        if own:
            found.append(own)
        elif products:
            is_list = True
    found += [StructuredProduct("state", block, match) for block, match in state_products(page, match_of)]
    return StructuredData(tuple(found), is_list, frozenset(types))


def match_of(page: HtmlPage, block: Block) -> float:
    """Return the match of a block with the page, from 0 to 1: by its URL, or by the words of its name."""
    for key in ("url", "@id", "mainEntityOfPage"):
        if isinstance(block.get(key), str) and _same_page(block[key], page.url):
            return 1.0
    name, title = _words(block.get("name")), _words(page.title)
    if not name or not title:
        return 0.0
    fewer, more = sorted((len(name), len(title)))
    # One common word is not enough for a heading of several words.
    return len(name & title) / fewer if fewer > 1 or more == 1 else 0.4 * len(name & title)


def product_values(block: Block, url: str) -> dict[str, Any]:
    """Return the raw values of a Product; missing values of a ProductGroup come from its variant."""
    variant = chosen(variants(block), url)
    values: dict[str, Any] = {}
    for one in (block, variant):
        found = {
            "name": first(one.get("name")),
            "brand": named(one.get("brand")),
            "description": first(one.get("description")),
            "size": _quantity(first(one.get("size"))),
            "ingredients": _joined(one.get("ingredients")),
            "country": named(one.get("countryOfOrigin")),
            "manufacturer": named(one.get("manufacturer")),
            **_offer(one.get("offers"), url),
        }
        values = {**{key: value for key, value in found.items() if value}, **values}
    return values


def all_offers(block: Block) -> Iterator[tuple[Any, Any]]:
    """Yield the price and currency of every offer of a block and its variants."""
    for one in (block, *islice(variants(block), _MAX_OFFERS)):
        for offer in islice(_offers(one.get("offers")), _MAX_OFFERS):
            yield amount(offer), _currency(offer)


def first(value: Any) -> Any:
    """Return a value, or the first of several."""
    return value[0] if isinstance(value, list) and value else value


def named(value: Any) -> Any:
    """Return the name of a Brand, Organization or Country, given as text or object."""
    one = first(value)
    return first(one.get("name")) if isinstance(one, dict) else one


def chosen(blocks: list[Block], url: str) -> Block:
    """Return the block with the product id of the URL, else the first."""
    with contextlib.suppress(ValueError):
        product_id = urls.product_id(url)
        for block in blocks:
            if product_id in (str(block.get("sku")), str(block.get("@id"))):
                return block
    return blocks[0] if blocks else {}


def amount(offer: Block) -> Any:
    """Return the price of an offer from price, lowPrice or priceSpecification."""
    specification = offer.get("priceSpecification")
    return first(offer.get("price")) or first(offer.get("lowPrice")) or _get(specification, "price")


def _sold(blocks: list[Block]) -> Iterator[Block]:
    products = [block for block in blocks if is_product(block)]
    if products:
        yield from products
        return
    for block in blocks:
        if not types_of(block) & _NOT_PRODUCT_TYPES and any(clean("price", price) for price, _ in all_offers(block)):
            yield block


def _own(page: HtmlPage, source: str, products: list[Block]) -> StructuredProduct | None:
    rated = [(match_of(page, block), bool(block.get("offers")), -i) for i, block in enumerate(products)]
    if not rated:
        return None
    match, _, place = max(rated)
    names = {str(first(block.get("name"))) for block in products}
    if len(names) > 2 and match < _MATCH:
        return None
    own = dict(products[-place])
    name = own.get("name")
    for other in products[:10]:
        # A product may be split into several blocks; blocks without a name belong to the only named one.
        if other.get("name") == name or (not other.get("name") and len(names) < 3):
            own = {**other, **{key: value for key, value in own.items() if value}}
    return StructuredProduct(source, own, match)


def _same_page(address: str, url: str) -> bool:
    try:
        one, other = (unquote(urlsplit(text.strip()).path).rstrip("/").lower() for text in (address, url))
    except ValueError:
        return False
    return len(one) > 1 and one == other


def _words(value: Any) -> set[str]:
    return set(re.findall(r"\w+", clean_text(first(value), 300).lower()))


def _offers(offers: Any) -> Iterator[Block]:
    """Yield the offers; those inside an AggregateOffer follow it."""
    for one in offers[:_MAX_OFFERS] if isinstance(offers, list) else [offers]:
        if isinstance(one, dict):
            yield one
            inner = one.get("offers")
            for two in inner[:_MAX_OFFERS] if isinstance(inner, list) else [inner]:
                if isinstance(two, dict):
                    yield two


def _offer(offers: Any, url: str) -> dict[str, Any]:
    offer = chosen([one for one in islice(_offers(offers), _MAX_OFFERS) if clean("price", amount(one))], url)
    return {"price": amount(offer), "currency": _currency(offer)}


def _currency(offer: Block) -> Any:
    return first(offer.get("priceCurrency")) or _get(offer.get("priceSpecification"), "priceCurrency")


def _get(value: Any, key: str) -> Any:
    one = first(value)
    return one.get(key) if isinstance(one, dict) else None


def _quantity(value: Any) -> Any:
    """Return a size as text; a QuantitativeValue has separate number and unit."""
    if not isinstance(value, dict):
        return value
    return f"{clean('size', value.get('value'))} {clean('size', value.get('unitText'))}".strip() or value.get("name")


def _joined(value: Any) -> Any:
    return ", ".join(filter(None, (clean("ingredients", one) for one in value))) if isinstance(value, list) else value
