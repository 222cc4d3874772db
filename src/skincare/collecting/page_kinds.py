"""Classification of pages: product page, bot challenge, or other.

Listings, search results, articles and error pages also have prices, images and buy buttons. A page is a product page if
its score for structured data, a price and a buy button near the main title, a product URL and product forms exceeds
its score for signs of a listing (many cards, pagination, filters) by a threshold.
"""

import re
from itertools import islice
from typing import Final, Literal

from skincare.collecting.html_page import HtmlPage, words_of
from skincare.collecting.metadata import clean
from skincare.collecting.page_areas import Area
from skincare.collecting.structured_products import StructuredData, all_offers
from skincare.collecting.visible_prices import MIN_SCORE, VisiblePrice, closeness

Kind = Literal["product", "challenge", "other"]

_MIN_SCORE: Final = 5.0
_CHALLENGE_NAMES: Final = frozenset({"challenge-form", "cf-wrapper", "px-captcha", "g-recaptcha", "h-captcha"})
_CHALLENGE_TITLE: Final = re.compile(
    r"just a moment|attention required|access denied|are you a (robot|human)|verify you are|captcha|robot check|"
    r"security check|pardon our interruption|request unsuccessful|unusual traffic|ddos|checking your browser|"
    r"human verification|bot verification|access to this page has been denied",
    re.IGNORECASE,
)
_PRODUCT_ADDRESS: Final = re.compile(
    r"/(p|pd|pdp|dp|prod|products?|product-detail|item|items|itm|deal|goods|sku|artikel|article|produkt|producto|produit|"
    r"prodotto|produto|proizvod|termek|tuote|shop/prod)/[^/]*[^/]|[-_/.]p?[0-9]{5,}(\.html?|/)?$|\.html?$",
    re.IGNORECASE,
)
_LIST_TITLE: Final = re.compile(
    r"search results|results for|suchergebnis|r[ée]sultats|resultados|risultati|wyniki|результаты|検索結果|"
    r"page not found|404|not found|nicht gefunden|introuvable|no encontrad|non trovat",
    re.IGNORECASE,
)
_UNAVAILABLE: Final = re.compile(
    r"currently unavailable|out of stock|sold out|no longer available|nicht verfügbar|ausverkauft|nicht auf lager|"
    r"indisponible|rupture de stock|[eé]puis[eé]|non disponibile|esaurito|agotado|no disponible|esgotado|"
    r"indispon[ií]vel|"
    r"uitverkocht|wyprzedan|niedostępn|vyprodán|vypredan|ni na zalogi|nema na zalihi|нет в наличии|распродан|"
    r"売り切れ|在庫切れ|已售完|缺貨|품절|אזל",
    re.IGNORECASE,
)
_LIST_WORDS: Final = frozenset({
    "pagination", "pager", "facet", "facets", "filters", "sorting", "sortby", "plp", "searchresults",
    "resultlist", "productlist", "productgrid",
})  # fmt: skip
_DETAIL_WORDS: Final = (
    {"product", "detail"}, {"product", "details"}, {"product", "page"}, {"pdp"}, {"product", "main"},
    {"product", "info"}, {"product", "view"}, {"product", "title"}, {"product", "single"},
)  # fmt: skip
_OTHER_TYPES: Final = ("article", "blog", "profile", "video.other", "video.movie")
_OTHER_SCHEMA_TYPES: Final = frozenset({
    "article", "newsarticle", "blogposting", "recipe", "collectionpage", "searchresultspage",
})  # fmt: skip


def is_challenge(page: HtmlPage) -> bool:
    """Return whether a page is a bot challenge."""
    if _CHALLENGE_TITLE.search(page.title) or _CHALLENGE_TITLE.search(_head_title(page)):
        return True
    return any(
        {element.get("id"), *element.get("class").split()} & _CHALLENGE_NAMES for element in page.elements[:20_000]
    )


def is_product_page(page: HtmlPage, structured: StructuredData, shown: list[VisiblePrice], buttons: list[int]) -> bool:
    """Return whether a page is the page of one product."""
    return _for_product(page, structured, shown, buttons) - _for_other(page, structured, shown) >= _MIN_SCORE


def _for_product(page: HtmlPage, structured: StructuredData, shown: list[VisiblePrice], buttons: list[int]) -> float:
    og_type = page.first_meta("og:type").lower().strip()
    is_stated = any(one.source != "state" for one in structured.products)
    score = 2.0 if structured.products else 0.0
    score += 4.0 if is_stated or ("product" in og_type and not og_type.endswith("group")) else 0.0
    agreed = {f"{one.amount:.2f}" for one in shown if one.score >= MIN_SCORE}
    for state in structured.products:
        score += 2.0 if any(clean("price", price) in agreed for price, _ in all_offers(state.block)) else 0.0
    best = shown[0].score if shown else 0.0
    score += 3.0 if best >= 8.0 else 2.0 if best >= 5.0 else 0.0
    # In a listing no price has a much higher score than the others.
    score += 1.0 if best >= 8.0 and (len(shown) == 1 or shown[1].score < best - 3.0) else 0.0
    score += 2.0 if page.first_meta("product:price:amount", "og:price:amount", "og:price") else 0.0
    score += 2.0 if any(closeness(page, one, page.title_at) > 0.15 for one in buttons[:20]) else 0.0
    score += 1.0 if _PRODUCT_ADDRESS.search(page.url.partition("?")[0]) else 0.0
    score += 1.5 if _is_detail(page) else 0.0
    score += 2.0 if _is_unavailable(page) else 0.0
    return score + (1.0 if _has_choice(page) else 0.0)


def _for_other(page: HtmlPage, structured: StructuredData, shown: list[VisiblePrice]) -> float:
    score = 3.0 if structured.is_list else 0.0
    is_other_type = structured.types & _OTHER_SCHEMA_TYPES or page.first_meta("og:type").lower().strip() in _OTHER_TYPES
    score += 4.0 if is_other_type else 0.0
    score += 6.0 if _LIST_TITLE.search(page.title) or _LIST_TITLE.search(_head_title(page)) else 0.0
    near = [one for one in shown if one.score > 3.0]
    linked = [one for one in near if page.elements[one.place].area & (Area.LINKED | Area.CARD)]
    score += 2.0 if len(linked) > 3 else 0.0
    after_title = sum(1 for one in page.tagged("a") if one.place > page.title_at and one.area & Area.CARD)
    score += 1.0 if after_title > 40 and not _is_detail(page) else 0.0
    paging = any(one.get("rel") in ("next", "prev") for one in page.tagged("link", "a"))
    listing = any(words_of(element) & _LIST_WORDS for element in page.elements[:30_000])
    if _is_detail(page):
        # Reviews on product pages also have pagination and filters.
        return score + (1.5 if paging else 0.0)
    return score + (3.0 if paging else 0.0) + (1.5 if listing else 0.0)


def _head_title(page: HtmlPage) -> str:
    return next((page.source_of(one)[:300] for one in page.tagged("title")), "")


def _is_detail(page: HtmlPage) -> bool:
    """Return whether an element around or in the main title has the class names of product details."""
    around = list(page.tagged("body"))[:1]
    if page.title_at >= 0:
        around += [*page.around(page.elements[page.title_at], 30), *page.elements[page.title_at : page.title_at + 4]]
    return any(wanted <= words_of(element) for element in around for wanted in _DETAIL_WORDS)


def _is_unavailable(page: HtmlPage) -> bool:
    """Return whether a short text after the main title says that the product is unavailable."""
    if page.title_at < 0:
        return False
    start = page.elements[page.title_at].texts_at
    for i in range(start, min(start + 300, len(page.texts))):
        area = page.elements[page.owners[i]].area
        if len(page.texts[i]) < 200 and not area & (Area.UNSEEN | Area.ASIDE) and _UNAVAILABLE.search(page.texts[i]):
            return True
    return False


def _has_choice(page: HtmlPage) -> bool:
    """Return whether a form has a field for a quantity or a product id."""
    for element in islice(page.tagged("input", "select"), 300):
        name = f"{element.get('name')} {element.get('id')}".lower()
        if re.search(r"quantity|\bqty|product_?id|productid|\bsku\b|\basin\b|variant", name):
            return True
    return False
