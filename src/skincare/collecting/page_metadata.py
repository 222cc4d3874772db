"""Metadata of a product page: from structured data, else its text blocks, else OpenGraph.

Text blocks are identified by their headings ("How to Use", "Full Ingredients List"), since their order and classes
differ between pages. skincare.collecting.brands finds a displayed brand.

The price is selected by a weighted vote of structured data and displayed prices. Structured prices may be missing or
the regular price while a lower one is displayed; displayed prices may belong to another product. An amount in both
wins; otherwise the structured one, unless a displayed price has a high score.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any, Final

from skincare.collecting.amounts import currency_in, machine_amount
from skincare.collecting.brands import plain_brand, visible_brand
from skincare.collecting.html_page import Element, HtmlPage
from skincare.collecting.metadata import FIELDS, Fact, clean, clean_currency, merge
from skincare.collecting.structured_products import StructuredProduct, all_offers, product_values
from skincare.collecting.visible_prices import MIN_SCORE, VisiblePrice
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

_WEIGHTS: Final = {"json_ld": 5.0, "microdata": 5.0, "rdfa": 4.5, "open_graph": 4.0, "state": 3.0}
_OTHER_OFFER: Final = 2.5
_AGREEING: Final = 1.0
_SHOWN: Final = 0.8
_OPEN_GRAPH_PRICE: Final = ("product:sale_price:amount", "product:price:amount", "og:price:amount", "og:price")
_OPEN_GRAPH_CURRENCY: Final = ("product:price:currency", "og:price:currency", "og:price:standard_currency")


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


@dataclass
class _Vote:
    weight: float = 0.0
    source: str = ""
    currency: str = ""


@dataclass(frozen=True)
class Price:
    """An amount, its currency if known, and its source."""

    amount: str
    currency: str
    source: str


def choose_price(page: HtmlPage, products: tuple[StructuredProduct, ...], shown: list[VisiblePrice]) -> Price | None:
    """Return the price of the page's product; None without a candidate."""
    votes: dict[str, _Vote] = {}
    for product in products:
        facts, offers = product_values(product.block, page.url), list(all_offers(product.block))
        # With several offers the first one is less reliable.
        is_one = len({str(price) for price, _ in offers if price}) < 2
        weight = _WEIGHTS[product.source] - (0.0 if is_one else 1.0)
        _add_vote(votes, facts.get("price"), facts.get("currency"), product.source, weight)
        for price, currency in offers:
            _add_vote(votes, price, currency, product.source, _OTHER_OFFER)
    currency = page.first_meta(*_OPEN_GRAPH_CURRENCY)
    for name in _OPEN_GRAPH_PRICE:
        if price := page.first_meta(name):
            _add_vote(votes, price, currency or currency_in(price), "open_graph", _WEIGHTS["open_graph"])
            break
    currencies = {vote.currency for vote in votes.values() if vote.currency}
    for one in shown:
        amount = f"{one.amount:.2f}"
        if amount in votes and one.score > 3.0:
            vote = votes[amount]
            vote.weight += _SHOWN * one.score
            vote.currency = vote.currency or one.currency
        elif amount not in votes and one.score >= MIN_SCORE:
            own = one.currency or (currencies.copy().pop() if len(currencies) == 1 else "")
            votes[amount] = _Vote(_SHOWN * one.score, "page", own)
    if not votes:
        return None
    amount, vote = max(votes.items(), key=lambda item: item[1].weight)
    return Price(amount, vote.currency, vote.source)


def _add_vote(votes: dict[str, _Vote], price: Any, currency: Any, source: str, weight: float) -> None:
    code = clean_currency(currency) or currency_in(str(price)[:40])
    number = machine_amount(price, code)
    if number is None:
        return
    vote = votes.setdefault(f"{number:.2f}", _Vote())
    if vote.source in ("", source):
        vote.weight = max(vote.weight, weight)
    elif weight > vote.weight:
        vote.weight = weight + _AGREEING
    elif weight > _OTHER_OFFER:
        vote.weight += _AGREEING
    vote.source, vote.currency = vote.source or source, vote.currency or code


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
