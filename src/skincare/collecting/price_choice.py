"""Selection of the product's price by a weighted vote of structured data and displayed prices.

Structured prices are sometimes missing or the regular price while a lower one is displayed; displayed prices may belong
to another product. An amount in both wins; otherwise the structured one, unless a displayed price has a high score.
"""

from dataclasses import dataclass
from typing import Any, Final

from skincare.collecting.amounts import currency_in, machine_amount
from skincare.collecting.html_page import HtmlPage
from skincare.collecting.metadata import clean_currency
from skincare.collecting.structured_products import StructuredProduct, all_offers, product_values
from skincare.collecting.visible_prices import MIN_SCORE, VisiblePrice

_WEIGHTS: Final = {"json_ld": 5.0, "microdata": 5.0, "rdfa": 4.5, "open_graph": 4.0, "state": 3.0}
_OTHER_OFFER: Final = 2.5
_AGREEING: Final = 1.0
_SHOWN: Final = 0.8
_OPEN_GRAPH: Final = ("product:sale_price:amount", "product:price:amount", "og:price:amount", "og:price")
_OPEN_GRAPH_CURRENCY: Final = ("product:price:currency", "og:price:currency", "og:price:standard_currency")


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
    for stated in products:
        facts, offers = product_values(stated.block, page.url), list(all_offers(stated.block))
        # With several offers the first one is less reliable.
        is_one = len({str(price) for price, _ in offers if price}) < 2
        weight = _WEIGHTS[stated.source] - (0.0 if is_one else 1.0)
        _add(votes, facts.get("price"), facts.get("currency"), stated.source, weight)
        for price, currency in offers:
            _add(votes, price, currency, stated.source, _OTHER_OFFER)
    currency = page.first_meta(*_OPEN_GRAPH_CURRENCY)
    for name in _OPEN_GRAPH:
        if price := page.first_meta(name):
            _add(votes, price, currency or currency_in(price), "open_graph", _WEIGHTS["open_graph"])
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


def _add(votes: dict[str, _Vote], price: Any, currency: Any, source: str, weight: float) -> None:
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
