"""Metadata of a product page: from structured data, else its text blocks, else OpenGraph.

Text blocks are identified by their headings ("How to Use", "Full Ingredients List"), since their order and classes
differ between pages. skincare.collecting.price_choice selects the price, skincare.collecting.brands finds a displayed
brand.
"""

from collections.abc import Iterator
from itertools import islice
from typing import Any, Final

from skincare.collecting.brands import plain_brand, visible_brand
from skincare.collecting.html_page import Element, HtmlPage
from skincare.collecting.metadata import FIELDS, Fact, clean, merge
from skincare.collecting.price_choice import choose_price
from skincare.collecting.structured_products import StructuredProduct, product_values
from skincare.collecting.visible_prices import VisiblePrice
from skincare.product.sizes import size_in_name

_HEADINGS: Final[dict[str, str]] = {
    "how to use": "how_to_use",
    "directions": "how_to_use",
    "directions for use": "how_to_use",
    "application": "how_to_use",
    "full ingredients list": "ingredients",
    "ingredients list": "ingredients",
    "full ingredients": "ingredients",
    "ingredients": "ingredients",
    "product overview": "description",
    "product description": "description",
    "description": "description",
    "overview": "description",
    "brand": "brand",
    "volume": "size",
    "size": "size",
    "country of origin": "country",
    "made in": "country",
    "manufacturer": "manufacturer",
}
_OPEN_GRAPH: Final[dict[str, tuple[str, ...]]] = {
    "name": ("og:title",),
    "brand": ("product:brand", "og:brand"),
    "description": ("og:description",),
}
# Real pages have about ten blocks; the limit bounds the time for a hostile page.
_MAX_BLOCKS: Final = 40


def read_metadata(
    page: HtmlPage, products: tuple[StructuredProduct, ...], shown: list[VisiblePrice]
) -> dict[str, Fact]:
    """Return the facts of a product page from its structured products and the displayed prices, best first."""
    explicit = [(one.source, _stated(one, page)) for one in products if one.source != "state"]
    state = [(one.source, _stated(one, page)) for one in products if one.source == "state"]
    if explicit and _is_cut(clean("name", explicit[0][1].get("name")), page.title):
        del explicit[0][1]["name"]
    own = {"name": page.title, **_from_blocks(page)}
    facts = merge([*explicit, ("page", own), ("open_graph", _open_graph(page))])
    if "brand" not in facts and (brand := visible_brand(page)):
        facts["brand"] = Fact(clean("brand", brand), "page")
    facts |= merge(state) | facts
    if price := choose_price(page, products, shown):
        facts["price"] = Fact(price.amount, price.source)
        if price.currency:
            facts["currency"] = Fact(price.currency, price.source)
    if "name" in facts:
        facts |= merge([("name", {"size": size_in_name(facts["name"].value)})]) | facts
    return {name: facts[name] for name in FIELDS if name in facts}


def _stated(product: StructuredProduct, page: HtmlPage) -> dict[str, Any]:
    """Return the values of a structured product without its price, which choose_price selects."""
    facts = product_values(product.block, page.url)
    brand = plain_brand(clean("brand", facts.get("brand")))
    return {key: value for key, value in facts.items() if key not in ("price", "currency")} | {"brand": brand}


def _is_cut(name: str, title: str) -> bool:
    """Return whether a structured name is the title truncated at a hyphen."""
    return bool(name) and len(name) < len(title) and title.startswith(name) and title[len(name) :].lstrip()[:1] in "-–"


def _open_graph(page: HtmlPage) -> dict[str, Any]:
    return {fact: page.first_meta(*names) or None for fact, names in _OPEN_GRAPH.items()}


def _from_blocks(page: HtmlPage) -> dict[str, Any]:
    """Return the text of the blocks whose heading names a field."""
    values: dict[str, Any] = {}
    for heading, block in islice(_blocks(page), _MAX_BLOCKS):
        fact = _HEADINGS.get(" ".join(heading.lower().split()).strip(" :"))
        if fact and fact not in values:
            inner = next(_classed(page, block, "attribute-content"), block)
            if text := clean(fact, page.text_of(inner)):
                values[fact] = text
    return values


def _blocks(page: HtmlPage) -> Iterator[tuple[str, Element]]:
    """Yield headings with their blocks: buttons with the element that they control; on older pages by id or name."""
    details = []
    for element in page.elements:
        if "aria-controls" in element.attrib:
            block = page.by_id.get(element.get("aria-controls"))
            if block:
                yield element.get("data-tracking-push") or page.text_of(element, 10), block
        elif "data-information-component" in element.attrib:
            details.append(element)
    for block_id, block in page.by_id.items():
        if block_id.startswith("product-description-content-"):
            heading = page.by_id.get(block_id.replace("-content-", "-heading-", 1))
            if heading is None and block.parent >= 0:
                around = page.elements[block.parent]
                heading = next(_classed(page, around, "productDescription_contentPropertyHeading"), None)
            if heading:
                yield page.text_of(heading, 10), block
    for detail in details:
        inner = (one for one in page.inside(detail) if one.tag in ("li", "div"))
        yield detail.get("data-information-component"), next(inner, detail)


def _classed(page: HtmlPage, element: Element, name: str) -> Iterator[Element]:
    return (one for one in islice(page.inside(element), 2000) if name in one.get("class").split())
