"""Displayed prices of a page, scored as the price of its product.

Each short text with an amount is scored by the words of its class and id names, the text before and after it, whether
it is struck through, hidden, linked or in a card, and its distance from the main title and the buy buttons. The weights
were tuned by hand on real pages of 26 sites; none is specific to a site.
"""

import math
import re
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, replace
from decimal import Decimal
from itertools import islice
from typing import Final

from skincare.collecting.amounts import amount_of, amounts_in, currency_in, has_sign, tidy
from skincare.collecting.html_page import Element, HtmlPage, words_of
from skincare.collecting.page_areas import Area

MIN_SCORE: Final = 5.0

_MAX_TEXTS: Final = 5_000
_MAX_UNITS: Final = 600
_MAX_UNIT: Final = 60  # maximum length of a text that holds only a price
_MAX_SENTENCE: Final = 200
_MAX_CONTEXT: Final = 90  # maximum length of its context
_DIGIT: Final = re.compile("[0-9]")
_LARGE: Final = re.compile(r"font[a-z-]{0,10}\s{0,3}:[^;:]{0,30}?\b(1[89]|[2-5][0-9])px")
_DECIMALS: Final = re.compile(r"[.,][0-9]{2}$")
_MAX_CLIMB: Final = 4
_MANY: Final = 4  # amounts in elements of one shape
_PRICE_WORDS: Final = frozenset({
    "price", "prices", "pricing", "prix", "preis", "preise", "precio", "precios", "preco", "preço", "prezzo",
    "prezzi", "prijs", "cena", "ceny", "cijena", "pret", "fiyat", "hinta", "pris", "ar", "amount", "offer",
})  # fmt: skip
_OLD_WORDS: Final = frozenset({
    "old", "was", "list", "barred", "slashed", "regular", "rrp", "msrp", "strike", "striked", "strikethrough",
    "crossed", "through", "before", "original", "compare", "retail", "standard", "uvp", "ancien", "barre",
    "vecchio", "antes", "alt", "base", "full", "high",
})  # fmt: skip
_OTHER_WORDS: Final = frozenset({
    "save", "saving", "savings", "saved", "ship", "shipping", "delivery", "postage", "installment", "installments",
    "instalment", "instalments", "month", "monthly", "finance", "financing", "credit", "loan", "klarna", "unit", "per",
    "points", "cashback", "coupon", "voucher", "tax", "deposit", "warranty", "protection", "insurance", "swatch",
    "variant", "tooltip", "filter", "facet", "threshold", "used", "refurbished", "parcelas", "parcela", "versand",
    "livraison", "spedizione", "envio", "frete", "rate", "count", "counter",
})  # fmt: skip
# Also part of names of sale prices: `discount-price`.
_MAYBE_OTHER_WORDS: Final = frozenset({
    "discount", "discounts", "promo", "gift", "card", "table", "comparison", "rating", "ratings", "review", "reviews",
    "stars", "count", "quantity", "qty", "stock", "sku", "payments", "payment", "max", "min",
})  # fmt: skip
_NEW_WORDS: Final = frozenset({
    "sale", "special", "now", "current", "final", "new", "our", "selling", "actual", "today", "deal", "main",
    "product",
})  # fmt: skip
_BEFORE_OTHER: Final = re.compile(
    r"(list price|rrp|\bwas|msrp|regular|retail|before|sav(e|ing)s?|statt|uvp|conseill|au lieu|antes|\bde:|normal|"
    r"instead|\bold|ship|deliver|versand|livraison|spedizione|env[ií]o|entrega|\bfrom|month|deposit|over|coupon|"
    r"discount|rabat|remise|sconto|descuento|desconto|rispar|économ|ahorr|economi|gutschein|lieferung|versandkosten|"
    r"\bup to|\bx\b|[0-9]x|used|usat|occasion|gebraucht|refurbished|consigliato|точк|доставк|運費|원래)[^.!?]{0,25}$",
    re.IGNORECASE,
)
_AFTER_OTHER: Final = re.compile(
    r"^\W{0,3}(%|/ ?(kg|g|l|ml|100|unit|unité|stück|st|piece|each|m²|mo)|per |pro |par |al mese|a month|month|"
    r"(sofort)? ?off\b|points?|ratings?|reviews?|stars?|ships?|x\b|\(?s?hipping|delivery|versand|livraison|"
    r"[개명件人個]|(cm|mm|ml|kg|gb|tb|mah|hz|w|v|g|oz|lb|inch|days?|hours?|tage|jahre|years?|pcs|pieces)\b)",
    re.IGNORECASE,
)
_BUY: Final = re.compile(
    r"add.?to.?(cart|basket|bag|trolley|order)|buy.?now|\bbuy\b|addtocart|addtobasket|addtobag|checkout|order now|"
    r"warenkorb|einkaufswagen|kaufen|panier|acheter|commander|carrello|acquista|carrito|comprar|cesta|carrinho|"
    r"winkelwagen|bestel|koszyk|kup\b|ko[sš][ií]k|kúpi|koupit|ko[sš]ar|kupi\b|naru[cč]i|kos[aá]r|co[sș]|ostoskori|"
    r"kurv|varukorg|sepet|корзин|купить|заказать|себет|カート|購入|購物車|購買|加入|立即|장바구니|구매|바로구매|הוסף|לסל|קנה|"
    r"contact supplier|start order",
    re.IGNORECASE,
)

_BUTTON_NAMES: Final = ("id", "name", "value", "class", "title", "aria-label", "action")
_PENALTIES: Final = (
    (Area.STRUCK, 6.0),
    (Area.HIDDEN, 2.0),
    (Area.ASIDE | Area.CHROME, 5.0),
    (Area.LINKED, 3.0),
    (Area.CARD, 2.0),
)


@dataclass(frozen=True)
class VisiblePrice:
    """A displayed amount with the adjacent currency and its score."""

    amount: Decimal
    currency: str
    score: float
    place: int


def visible_prices(page: HtmlPage, buttons: list[int]) -> list[VisiblePrice]:
    """Return the displayed amounts, the best occurrence of each, highest score first."""
    best: dict[Decimal, VisiblePrice] = {}
    units = list(islice(_units(page), _MAX_UNITS))
    shapes = _shapes(page, units)
    for unit in units:
        rated = _rated(page, unit, buttons)
        if rated and len(shapes[_shape(page, unit.element)]) >= _MANY:
            rated = replace(rated, score=rated.score - 2.0)
        if rated and (rated.amount not in best or best[rated.amount].score < rated.score):
            best[rated.amount] = rated
    return sorted(best.values(), key=lambda one: (-one.score, one.place))


def buy_buttons(page: HtmlPage) -> list[int]:
    """Return the element indices of the buy buttons."""
    found = []
    for element in page.tagged("button", "input", "a", "form", "div", "span"):
        if element.area & (Area.UNSEEN | Area.ASIDE | Area.CHROME | Area.CARD):
            continue
        attributes = element.attrib
        if element.tag in ("div", "span") and attributes.get("role") != "button" and "btn" not in element.get("class"):
            continue
        button_names = " ".join(attributes[name][:100] for name in _BUTTON_NAMES if name in attributes)
        text = joined_text(page, element, 60) if element.tag != "form" else ""
        if _BUY.search(f"{button_names} {text}"):
            found.append(element.place)
    return sorted(found)


@dataclass(frozen=True)
class _Unit:
    """One amount: its innermost element, and its position in the surrounding short text."""

    element: Element
    text: str
    start: int
    end: int
    is_whole: bool  # the element holds no other text


def joined_text(page: HtmlPage, element: Element, limit: int) -> str:
    """Return an element's text as displayed; `<b>12</b><sup>99</sup>` is 12.99.

    A text longer than `limit` may be truncated.
    """
    text = ""
    for piece in page.pieces(element, limit):
        text += _joint(text, piece) + piece
        if len(text) > 4 * limit:
            break
    return tidy(text)


def _joint(text: str, piece: str) -> str:
    if text[-1:].isdigit() and re.match(r"[0-9]{2}(?![0-9])", piece):
        # The number may already have decimals.
        return " " if re.search(r"[.,][0-9]{1,2}$", text) else "."
    if (text[-1:].isdigit() and re.match(r"[.,][0-9]|[.,]$", piece)) or re.search(r"[0-9][.,]$", text):
        return ""
    return " "


def _units(page: HtmlPage) -> Iterator[_Unit]:
    seen: set[tuple[int, int]] = set()
    pairs = zip(page.texts, page.owners, strict=True)
    with_digits = (one for one in pairs if len(one[0]) < 400 and _DIGIT.search(one[0]))
    for text, owner in islice(with_digits, _MAX_TEXTS):
        element = page.elements[owner]
        if not element.area & Area.UNSEEN and element.tag not in ("select", "textarea"):
            yield from _around(page, element, tidy(text), seen)


def _around(page: HtmlPage, element: Element, own: str, seen: set[tuple[int, int]]) -> Iterator[_Unit]:
    """Yield the amounts of a text with their context."""
    if len(own) > _MAX_UNIT:
        # In a longer text, amounts need a currency sign.
        for one in amounts_in(own)[:3] if len(own) < _MAX_SENTENCE and has_sign(own) else ():
            yield _Unit(element, own, one.start(), one.end(), is_whole=False)
        return
    for one in amounts_in(own)[:3]:
        holder, text, start, end = _widened(page, element, own, one)
        if (holder, start) not in seen:
            seen.add((holder, start))
            yield _Unit(element, text, start, end, is_whole=True)


def _widened(page: HtmlPage, element: Element, own: str, found: re.Match[str]) -> tuple[int, str, int, int]:
    """Return the largest short text around an amount in which no other amount has the same prefix."""
    holder, text, start, end = -element.place - 2, own, found.start(), found.end()
    for wide in page.around(element, _MAX_CLIMB):
        if wide.place <= page.title_at < wide.end:
            break
        wider = joined_text(page, wide, _MAX_CONTEXT)
        if len(wider) > _MAX_CONTEXT:
            break
        same = [one for one in amounts_in(wider) if one.group().startswith(text[start:end])]
        if len(same) != 1:
            break
        holder, text, start, end = wide.place, wider, same[0].start(), same[0].end()
    return holder, text, start, end


def _shapes(page: HtmlPage, units: list[_Unit]) -> dict[str, set[str]]:
    """Return the amounts by element shape; many amounts of one shape indicate a list."""
    shapes: dict[str, set[str]] = defaultdict(set)
    for unit in units:
        shapes[_shape(page, unit.element)].add(unit.text[unit.start : unit.end])
    return shapes


def _shape(page: HtmlPage, element: Element) -> str:
    return ">".join(f"{one.tag}.{one.get('class')}" for one in page.around(element, 3))


def _rated(page: HtmlPage, unit: _Unit, buttons: list[int]) -> VisiblePrice | None:
    amount_text, element = unit.text[unit.start : unit.end], unit.element
    named = _name_score(page, element)
    others = [one.end() for one in amounts_in(unit.text[: unit.start])]
    before, after = unit.text[max([0, *others]) : unit.start], unit.text[unit.end :]
    adjacent = f"{before[-6:]} {after[:6]}"
    amount = amount_of(amount_text, currency_in(adjacent))
    if amount is None:
        return None
    is_signed = has_sign(adjacent)
    score = named + (2.5 if is_signed else 0.0) + (0.5 if _DECIMALS.search(amount_text) else 0.0)
    score -= 0.0 if is_signed or named > 1.5 else 4.0
    score -= 0.0 if unit.is_whole else 2.0
    if page.title_at >= 0 and page.title_at <= element.place < page.elements[page.title_at].end:
        score -= 0.0 if is_signed else 6.0
    before = before if before.strip(" :$£€") else f"{_text_before(page, element)} {before}"
    score -= 4.0 if _BEFORE_OTHER.search(before[-40:]) else 0.0
    score -= 4.0 if _AFTER_OTHER.match(after) else 0.0
    score += 1.5 if _LARGE.search(element.get("style")[:400]) else 0.0
    score -= sum(penalty for area, penalty in _PENALTIES if element.area & area)
    score += _nearness(page, element, buttons)
    return VisiblePrice(amount, currency_in(adjacent), score, element.place)


def _name_score(page: HtmlPage, element: Element) -> float:
    """Score the class and id names of an element and its ancestors, nearest first."""
    score, weight = 0.0, 1.0
    has_price_word = False
    for one in page.around(element, 4):
        words = words_of(one)
        if one.get("itemprop") in ("price", "lowPrice"):
            score += 2.5 * weight
        is_price = bool(words & _PRICE_WORDS)
        if words & _OTHER_WORDS or (words & _MAYBE_OTHER_WORDS and not is_price):
            score -= 4.0 * weight
        elif is_price and not has_price_word:
            score += 3.0 * weight
            has_price_word = True
        if words & _OLD_WORDS and not words & _NEW_WORDS:
            score -= 3.5 * weight
        if words & _NEW_WORDS and words & _PRICE_WORDS:
            score += 1.0 * weight
        weight *= 0.7
    return score


def _text_before(page: HtmlPage, element: Element) -> str:
    """Return the end of the text before an element, within its grandparent."""
    *_, outer = page.around(element, 3)
    before = page.texts[max(outer.texts_at, element.texts_at - 2) : element.texts_at]
    return " ".join(" ".join(before).split())[-40:]


def _nearness(page: HtmlPage, element: Element, buttons: list[int]) -> float:
    score, place = 0.0, element.place
    if page.title_at >= 0:
        score += 4.0 * closeness(page, place, page.title_at)
        distance = place - page.title_at
        if distance >= 0:
            score += 2.5 if distance < 80 else 1.5 if distance < 250 else 0.5 if distance < 600 else -1.0
        else:
            score -= 1.0
    if buttons:
        at = bisect_left(buttons, place)
        steps = min(abs(buttons[i] - place) for i in (at - 1, at) if 0 <= i < len(buttons))
        score += 2.0 if steps < 40 else 1.0 if steps < 120 else 0.0
    return score


def closeness(page: HtmlPage, one: int, other: int) -> float:
    """Return the closeness of two elements, from 1 for neighbours to 0 if only the root contains both."""
    around = page.elements[other]
    for _ in range(500):
        if around.place <= one < around.end or around.parent < 0:
            break
        around = page.elements[around.parent]
    total = max(2, len(page.elements))
    return 1.0 - math.log(max(1, around.end - around.place)) / math.log(total)
