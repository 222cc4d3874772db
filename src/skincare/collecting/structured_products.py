"""Which of the products that a page states for machines is the one that it shows, and what is stated of it.

A page names its product, those beside it and those of lists in the same syntax; the one whose name says what the main
heading says, or whose address is the page's, is its own. Several products of which none is meant are a list.
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
from skincare.collecting.script_data import variants
from skincare.collecting.structured_data import (
    Block,
    is_product,
    json_ld_blocks,
    microdata_blocks,
    rdfa_blocks,
    types_of,
)

_MAX_PRODUCTS: Final = 300
_MAX_OFFERS: Final = 100
_MATCH: Final = 0.5
# What has offers without being sold on this page.
_NOT_PRODUCT_TYPES: Final = frozenset({
    "organization", "corporation", "onlinestore", "store", "website", "webpage", "searchresultspage",
    "collectionpage", "itemlist", "offercatalog", "breadcrumblist", "aggregateoffer", "offer",
    "offershippingdetails", "article", "newsarticle", "blogposting", "recipe",
})  # fmt: skip


@dataclass(frozen=True)
class StructuredProduct:
    """One syntax's product of a page; `match` from 0 to 1 says how much of the heading its name or address says."""

    source: str
    block: Block
    match: float


@dataclass(frozen=True)
class StructuredData:
    """The page's own product by each syntax, whether some syntax states several and none as its own, and all types."""

    products: tuple[StructuredProduct, ...]
    is_list: bool = False
    types: frozenset[str] = frozenset()


def read_structured_data(page: HtmlPage) -> StructuredData:
    """Return what the page states of its product, the most explicit syntax first."""
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
    """Return how far a block speaks of what the page shows: by its address, or by the words of its name."""
    for key in ("url", "@id", "mainEntityOfPage"):
        if isinstance(block.get(key), str) and _same_page(block[key], page.url):
            return 1.0
    name, title = _words(block.get("name")), _words(page.title)
    if not name or not title:
        return 0.0
    fewer, more = sorted((len(name), len(title)))
    # One word in common with a heading of several is no name.
    return len(name & title) / fewer if fewer > 1 or more == 1 else 0.4 * len(name & title)


def product_values(block: Block, url: str) -> dict[str, Any]:
    """Return raw values of a Product, or of a ProductGroup and where it is silent of its variant."""
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
    """Return the name of a Brand, Organization or Country, however it is given."""
    one = first(value)
    return first(one.get("name")) if isinstance(one, dict) else one


def chosen(blocks: list[Block], url: str) -> Block:
    """Return the block that speaks of the page's own id, else the first."""
    with contextlib.suppress(ValueError):
        product_id = urls.product_id(url)
        for block in blocks:
            if product_id in (str(block.get("sku")), str(block.get("@id"))):
                return block
    return blocks[0] if blocks else {}


def amount(offer: Block) -> Any:
    """Return the price of an offer, wherever it is stated."""
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
        # A product may be stated in parts; a part without a name is the only one's, or nobody's.
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
    """Yield the offers, those inside an AggregateOffer after it."""
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
    """Return the text of a size; a QuantitativeValue has number and unit apart."""
    if not isinstance(value, dict):
        return value
    return f"{clean('size', value.get('value'))} {clean('size', value.get('unitText'))}".strip() or value.get("name")


def _joined(value: Any) -> Any:
    return ", ".join(filter(None, (clean("ingredients", one) for one in value))) if isinstance(value, list) else value
