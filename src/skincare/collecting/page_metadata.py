"""From a parsed product page to its metadata: JSON-LD first, then the page's own blocks, then OpenGraph.

LookFantastic and its sister shops name their text blocks by headings ("How to Use", "Full Ingredients List"); which
number or class a block has differs from page to page, so only the heading counts.
"""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, Final

from bs4 import BeautifulSoup
from bs4.element import Tag

from skincare.catalogue import size_in_name
from skincare.collecting import urls
from skincare.collecting.metadata import FIELDS, Fact, clean, merge
from skincare.collecting.script_data import variants

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
    "price": ("product:price:amount", "og:price:amount"),
    "currency": ("product:price:currency", "og:price:currency"),
    "description": ("og:description",),
}
# Real pages have ten blocks of some hundred pieces; a hostile page must not cost a look at all of it for each.
_MAX_BLOCKS: Final = 40
_MAX_PIECES: Final = 2000


@dataclass
class _Page:
    """The parts of a page that can say something, found in one walk over it."""

    by_id: dict[str, Tag] = field(default_factory=dict)
    head: dict[str, str] = field(default_factory=dict)
    buttons: list[Tag] = field(default_factory=list)
    details: list[Tag] = field(default_factory=list)
    price: Tag | None = None

    @classmethod
    def of(cls, soup: BeautifulSoup) -> "_Page":
        page = cls()
        for tag in soup.find_all(True):
            attributes = tag.attrs
            if "id" in attributes:
                page.by_id.setdefault(str(attributes["id"]), tag)
            if "aria-controls" in attributes:
                page.buttons.append(tag)
            if "data-information-component" in attributes:
                page.details.append(tag)
            if tag.name == "meta" and {"property", "content"} <= attributes.keys():
                page.head.setdefault(str(attributes["property"]), str(attributes["content"]))
            if page.price is None and "productPrice_price" in attributes.get("class", ()):
                page.price = tag
        page.price = page.by_id.get("product-price", page.price)
        return page


def read_metadata(soup: BeautifulSoup, products: list[dict[str, Any]], title: str, url: str) -> dict[str, Fact]:
    """Return the facts of a product page; `products` are its JSON-LD blocks, `title` its main heading."""
    stated = _from_json_ld(products[0], url) if products else {}
    if _is_cut(clean("name", stated.get("name")), title):
        del stated["name"]
    page = _Page.of(soup)
    offers = [("json_ld", stated), ("page", {"name": title, **_from_blocks(page)}), ("open_graph", _open_graph(page))]
    facts = merge(offers)
    if "name" in facts:
        facts |= merge([("name", {"size": size_in_name(facts["name"].value)})]) | facts
    return {name: facts[name] for name in FIELDS if name in facts}


def _is_cut(name: str, title: str) -> bool:
    """Say whether JSON-LD has only the title's beginning, as the shop's ranges have it up to a hyphen."""
    return bool(name) and len(name) < len(title) and title.startswith(name) and title[len(name) :].lstrip()[:1] in "-–"


def _from_json_ld(product: dict[str, Any], url: str) -> dict[str, Any]:
    """Return raw values of a Product, or of a ProductGroup and where it is silent of its variant."""
    variant = _chosen(variants(product), url)
    values: dict[str, Any] = {}
    for block in (product, variant):
        found = {
            "name": block.get("name"),
            "brand": _named(block.get("brand")),
            "description": block.get("description"),
            "size": _quantity(block.get("size")),
            "ingredients": _joined(block.get("ingredients")),
            "country": _named(block.get("countryOfOrigin")),
            "manufacturer": _named(block.get("manufacturer")),
            **_offer(block.get("offers"), url),
        }
        values = {**{key: value for key, value in found.items() if value}, **values}
    return values


def _chosen(blocks: list[dict[str, Any]], url: str) -> dict[str, Any]:
    """Return the block that speaks of the page's own id, else the first."""
    with contextlib.suppress(ValueError):
        product_id = urls.product_id(url)
        for block in blocks:
            if product_id in (str(block.get("sku")), str(block.get("@id"))):
                return block
    return blocks[0] if blocks else {}


def _offer(offers: Any, url: str) -> dict[str, Any]:
    listed = [one for one in (offers if isinstance(offers, list) else [offers]) if isinstance(one, dict)]
    offer = _chosen([one for one in listed if clean("price", _amount(one))], url)
    specification = offer.get("priceSpecification")
    currency = offer.get("priceCurrency") or _get(specification, "priceCurrency")
    return {"price": _amount(offer), "currency": currency}


def _amount(offer: dict[str, Any]) -> Any:
    return offer.get("price") or offer.get("lowPrice") or _get(offer.get("priceSpecification"), "price")


def _get(value: Any, key: str) -> Any:
    first = value[0] if isinstance(value, list) and value else value
    return first.get(key) if isinstance(first, dict) else None


def _named(value: Any) -> Any:
    """Return the name of a Brand, Organization or Country, however it is given."""
    first = value[0] if isinstance(value, list) and value else value
    return first.get("name") if isinstance(first, dict) else first


def _quantity(value: Any) -> Any:
    """Return the text of a size; a QuantitativeValue has number and unit apart."""
    if not isinstance(value, dict):
        return value
    return f"{clean('size', value.get('value'))} {clean('size', value.get('unitText'))}".strip() or value.get("name")


def _joined(value: Any) -> Any:
    return ", ".join(filter(None, (clean("ingredients", one) for one in value))) if isinstance(value, list) else value


def _open_graph(page: _Page) -> dict[str, Any]:
    return {
        fact: next((page.head[name] for name in names if name in page.head), None)
        for fact, names in _OPEN_GRAPH.items()
    }


def _from_blocks(page: _Page) -> dict[str, Any]:
    """Return the text of the blocks whose heading names a field, and the price that is shown."""
    values: dict[str, Any] = {"price": _text(page.price)} if page.price else {}
    for heading, block in islice(_blocks(page), _MAX_BLOCKS):
        fact = _HEADINGS.get(" ".join(heading.lower().split()).strip(" :"))
        if fact and fact not in values:
            inner = block.find(class_="attribute-content") or block
            if text := clean(fact, _text(inner)):
                values[fact] = text
    return values


def _blocks(page: _Page) -> Iterator[tuple[str, Tag]]:
    """Yield heading and block: a button and what it controls; on older pages by id or by the name of a detail."""
    for button in page.buttons:
        block = page.by_id.get(str(button["aria-controls"]))
        if block is not None:
            yield str(button.get("data-tracking-push") or _text(button, 10)), block
    for block_id, block in page.by_id.items():
        if block_id.startswith("product-description-content-"):
            heading = page.by_id.get(block_id.replace("-content-", "-heading-", 1))
            if heading is None and block.parent is not None:
                heading = block.parent.find(class_="productDescription_contentPropertyHeading")
            if heading is not None:
                yield _text(heading, 10), block
    for detail in page.details:
        yield str(detail["data-information-component"]), detail.find(["li", "div"]) or detail


def _text(tag: Tag, max_pieces: int = _MAX_PIECES) -> str:
    return " ".join(islice(tag.strings, max_pieces))
