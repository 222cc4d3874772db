"""The displayed brand of a product, for pages without a brand in structured data.

Candidates: `Brand: X` in a table or property list, in a dozen languages; elements and links with a brand class or URL
near the title; the alternative text of a brand's logo.
"""

import re
from collections.abc import Iterator
from itertools import islice
from typing import Final
from urllib.parse import unquote

from skincare.collecting.html_page import Element, HtmlPage, words_of
from skincare.collecting.page_areas import Area
from skincare.collecting.visible_prices import closeness, joined_text

MAX_BRAND: Final = 50

_MAX_CANDIDATES: Final = 200
_MIN_SCORE: Final = 3.0
_LABELS: Final = (
    "brand|brand name|marke|markenname|marque|marca|merk|merknaam|marka|brend|značka|znacka|blagovna znamka|"
    "robna marka|márka|brand/manufacturer|manufacturer|hersteller|fabricant|fabbricante|produttore|fabricante|"
    "producent|výrobca|výrobce|proizvajalec|proizvođač|producător|gyártó|üretici|tillverkare|märke|varemerke|"
    "бренд|марка|производитель|виробник|ブランド|メーカー|品牌|廠牌|厂牌|"
    "制造商|브랜드|제조사|מותג|יצרן|العلامة التجارية|"
    "make|make / manufacturer|label|etichetta|vydavatel"
)
_LABEL: Final = re.compile(rf"^\W*(?:{_LABELS})\s*[:：]?\W*$", re.IGNORECASE)
_LABELLED: Final = re.compile(rf"^\W*(?:{_LABELS})\s*[:：]\s*(\S.{{0,{MAX_BRAND}}})$", re.IGNORECASE)
_LED_BY_LABEL: Final = re.compile(rf"^.{{0,60}}?\b(?:{_LABELS})\s*[:：]\s*(?=\S)", re.IGNORECASE)
# Template placeholders and sentences.
_NO_NAME: Final = re.compile(
    r"^[\[{$%<(#]|[{}<>|]|https?:|\S+(\s+\S+){6}|\b(manufacturer|brands?|hersteller)\b", re.IGNORECASE
)
_LABEL_TAGS: Final = frozenset(
    {"th", "td", "dt", "span", "div", "p", "li", "b", "strong", "label", "h3", "h4", "h5", "a"}
)
_BRAND_WORDS: Final = frozenset({
    "brand", "brands", "manufacturer", "marque", "marke", "marca", "merk", "byline", "designer", "vendor",
})  # fmt: skip
_BRAND_DATA: Final = ("data-brand", "data-brand-name", "data-product-brand")
_NOT_BRANDS: Final = frozenset({
    "brand", "brands", "all", "n/a", "na", "none", "0", "-", "generic", "unbranded", "unknown", "other", "null",
    "undefined", "no-name", "noname", "home", "shop",
})  # fmt: skip
_BRAND_LINK: Final = re.compile(
    r"/(brands?|marques?|marken?|marcas?|merk(en)?|manufacturers?|designers?|hersteller|znacka|znacky|brend|vyrobca)[/=-]"
    r"|[?&](brand|marca|marque|manufacturer)=",
    re.IGNORECASE,
)
# Words that shops put around a brand name.
_AROUND: Final = re.compile(
    rf"^\W*(?:(?:{_LABELS})\s*[:：]\s*|by\s+|von\s+|par\s+|di\s+|de\s+|from\s+|more from\s+|shop( all)?\s+|see all\s+|"
    r"visit the\s+|besuche(n sie)? den\s+|visita lo store di\s+|visiter la boutique\s+|visita la tienda de\s+)"
    r"|(?:[ -]store|[ -]shop| boutique)\W*$",
    re.IGNORECASE,
)


def visible_brand(page: HtmlPage) -> str:
    """Return the displayed brand with the highest score; empty below the minimum score."""
    best = (_MIN_SCORE, "")
    title = page.title.casefold()
    for score, element, text in islice(_candidates(page), _MAX_CANDIDATES):
        brand = plain_brand(text)
        if not brand:
            continue
        if element.area & (Area.ASIDE | Area.CHROME | Area.CARD):
            score -= 3.0
        if element.area & Area.HIDDEN:
            score -= 1.0
        score += 1.5 if brand.casefold() in title else 0.0
        score += 2.0 * closeness(page, element.place, page.title_at) if page.title_at >= 0 else 0.0
        if score > best[0]:
            best = (score, brand)
    return best[1]


def plain_brand(text: str) -> str:
    """Return a brand without surrounding words; empty if it is not a name.

    >>> plain_brand("Visit the Weleda Store"), plain_brand("by Weleda"), plain_brand("N/A")
    ('Weleda', 'Weleda', '')
    """
    brand = _LED_BY_LABEL.sub("", " ".join(text.split())[: 4 * MAX_BRAND])
    for _ in range(2):
        brand = _AROUND.sub("", brand).strip(" :：\u200e\u200f|›>»-")
    letters, digits = (len(re.findall(kind, brand)) for kind in (r"[^\W\d_]", r"\d"))
    is_name = 1 < len(brand) <= MAX_BRAND and letters >= max(1, digits) and not _NO_NAME.search(brand)
    return brand if is_name and brand.casefold() not in _NOT_BRANDS and not _LABEL.match(brand) else ""


def _candidates(page: HtmlPage) -> Iterator[tuple[float, Element, str]]:
    """Yield score, element and text of the candidates."""
    for i, (text, owner) in enumerate(zip(page.texts, page.owners, strict=True)):
        element = page.elements[owner]
        if len(text) > 200 or element.area & Area.UNSEEN or element.tag not in _LABEL_TAGS:
            continue
        own = " ".join(text.split())
        if _LABEL.match(own):
            if value := _value_after_label(page, element, i):
                yield 5.0, element, value
        elif labelled := _LABELLED.match(own):
            yield 4.5, element, labelled[1]
    for element in page.elements:
        if element.attrib and not element.area & Area.UNSEEN:
            yield from _attribute_candidates(page, element)


def _attribute_candidates(page: HtmlPage, element: Element) -> Iterator[tuple[float, Element, str]]:
    attributes = element.attrib
    if element.tag == "img":
        if words_of(element) & _BRAND_WORDS or _BRAND_LINK.search(element.get("src")):
            yield 2.0, element, element.get("alt") or element.get("title")
        return
    for name in _BRAND_DATA:
        if attributes.get(name):
            yield 2.5, element, attributes[name]
    score = 0.0
    if words_of(element) & _BRAND_WORDS or attributes.get("itemprop") == "brand":
        score = 3.0
    elif element.tag == "a" and _BRAND_LINK.search(unquote(element.get("href"))):
        score = 2.5
    if score:
        text = joined_text(page, element, MAX_BRAND + 30)
        if text and len(text) <= MAX_BRAND + 30:
            yield score, element, text
        else:
            yield from ((2.0, element, one.get("alt")) for one in islice(page.inside(element, "img"), 1))


def _value_after_label(page: HtmlPage, element: Element, at: int) -> str:
    """Return the text after a label, in the same element or the next one."""
    *_, outer = page.around(element, 4)
    for i in range(at + 1, min(at + 3, outer.texts_end)):
        text = " ".join(page.texts[i].split()).strip(" :：")
        if text:
            return text if len(text) <= MAX_BRAND else ""
    return ""
