"""Page areas of an element, from tags, classes, ids and styles: related products, navigation, hidden parts.

Class and id names are split into words; the word lists hold those that many shops use.
"""

import re
from functools import lru_cache
from typing import Final

UNSEEN_TAGS: Final = frozenset({"script", "style", "noscript", "template", "svg", "head", "iframe", "option"})
_MAX_STYLE: Final = 400
_STRUCK: Final = re.compile(r"line-through")
_HIDDEN_STYLE: Final = re.compile(r"display\s*:\s*none|visibility\s*:\s*hidden")
_WORDS: Final = re.compile(r"[a-z]+|[A-Z]+(?![a-z])|[A-Z][a-z]+")
_ASIDE_WORDS: Final = frozenset({
    "related", "recommend", "recommended", "recommendation", "recommendations", "similar", "also", "upsell", "upsells",
    "crosssell", "sponsored", "recently", "viewed", "frequently", "bundle", "comparison", "suggested", "suggestion",
    "suggestions", "alternative", "alternatives", "advertisement", "minicart", "flyout", "megamenu", "reviews",
    "review", "comments", "testimonials", "accessories", "newsletter", "login", "cookie", "cookies",
})  # fmt: skip
_CARD_WORDS: Final = frozenset({"card", "tile", "teaser", "carousel", "slide", "slider", "swiper", "slick"})
_CHROME_WORDS: Final = frozenset({
    "nav", "navbar", "navigation", "menu", "submenu", "footer", "breadcrumb", "breadcrumbs", "sitemap",
})  # fmt: skip


class Area:
    """Bit flags for the areas around an element; plain integers, since enum.Flag takes a quarter of the parse time."""

    UNSEEN: Final = 1  # scripts, styles, templates: text that is not displayed
    HIDDEN: Final = 2
    STRUCK: Final = 4
    ASIDE: Final = 8  # related products, reviews, advertisements
    CHROME: Final = 16  # navigation and footer
    LINKED: Final = 32  # inside a link to another page
    CARD: Final = 64  # one of a row of cards or slides


_TAG_AREAS: Final[dict[str, int]] = {
    **dict.fromkeys(UNSEEN_TAGS, Area.UNSEEN),
    **dict.fromkeys(("nav", "footer", "aside"), Area.CHROME),
    **dict.fromkeys(("del", "s", "strike"), Area.STRUCK),
}


@lru_cache(maxsize=4096)
def words_in(names: str) -> frozenset[str]:
    """Return the lower-case words of ids and classes: `productPrice_old` has product, price, old."""
    return frozenset(word.lower() for word in _WORDS.findall(names))


def area_of(tag: str, attributes: dict[str, str], own_path: str) -> int:
    """Return the areas that an element starts; `own_path` is the path of the page's URL."""
    area = _TAG_AREAS.get(tag, 0)
    if not attributes or tag in ("html", "body"):
        # These contain the whole page.
        return area
    if "class" in attributes or "id" in attributes:
        area |= _named_area(f"{attributes.get('id', '')} {attributes.get('class', '')}"[:500])
    if "style" in attributes:
        style = attributes["style"][:_MAX_STYLE]
        area |= (Area.HIDDEN if _HIDDEN_STYLE.search(style) else 0) | (Area.STRUCK if _STRUCK.search(style) else 0)
    if "hidden" in attributes or attributes.get("aria-hidden") == "true":
        area |= Area.HIDDEN
    if tag == "a" and _leads_away(attributes.get("href", ""), own_path):
        area |= Area.LINKED
    return area


@lru_cache(maxsize=4096)
def _named_area(names: str) -> int:
    words = words_in(names)
    area = Area.ASIDE if words & _ASIDE_WORDS or {"cross", "sell"} <= words else 0
    area |= Area.CARD if words & _CARD_WORDS else 0
    return area | (Area.CHROME if words & _CHROME_WORDS else 0)


def _leads_away(href: str, own_path: str) -> bool:
    """Return whether a link leads to another page, not to an anchor or a script."""
    href = href.strip()
    if not href or href.startswith(("#", "javascript:")):
        return False
    path = href.partition("#")[0].partition("?")[0]
    return len(path) < 2 or not own_path.endswith(path)
