"""Product pages: HTML in, the addresses of the product's pictures and its metadata out.

Pure and total: any bytes and any address give a ProductPage, never an exception. The ways to the pictures, first
that finds some: the page's `const images = [...]`, the older carousel, JSON-LD Product or ProductGroup, og:image.
"""

import html as html_entities
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, Final, Literal
from urllib.parse import parse_qs, urljoin, urlsplit

from bs4 import BeautifulSoup
from bs4.dammit import EncodingDetector
from bs4.exceptions import ParserRejectedMarkup

from skincare.collecting import urls
from skincare.collecting.metadata import Fact
from skincare.collecting.page_metadata import read_metadata
from skincare.collecting.script_data import json_ld_products, literal, variants

Kind = Literal["product", "challenge", "other"]
Source = Literal["script", "carousel", "json_ld", "open_graph", "none"]

# Real pages are below 2 MB; the tree of a page takes some ten times its text and
# a second or two for each million characters.
MAX_CHARACTERS: Final = 4_000_000
ORIGINAL_HOSTS: Final = frozenset({"static.thcdn.com"})
RESIZER_HOSTS: Final = frozenset({"www.lookfantastic.com", "lookfantastic.com", "main.thgimages.com"})

# A page that repeats a broken constant for ever must not cost a decoding each time.
_MAX_CONSTANTS: Final = 20
_IMAGES_CONSTANT: Final = re.compile(r"\b(?:const|let|var)\s+images\s*=\s*(?=[\[{])")
_SIZED_PATH: Final = re.compile(r"^/productimg/\d+/\d+/")
_IMAGE_KEYS: Final = ("original", "zoom", "large", "url", "contentUrl", "src")
_PRODUCT_MARKER: Final = "#view-item-container, #product-title, .productName_title, .athenaProductImageCarousel_image"
_CHALLENGE_MARKER: Final = "#challenge-form, #cf-wrapper, #px-captcha, .g-recaptcha, .h-captcha"
_CHALLENGE_TITLE: Final = re.compile(
    r"just a moment|attention required|access denied|are you a (robot|human)|verify you are|captcha|"
    r"security check|pardon our interruption|request unsuccessful",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class ProductPage:
    """What one page says: whether it shows a product at all, and its pictures in the page's order, its metadata."""

    kind: Kind = "other"
    title: str = ""
    image_urls: tuple[str, ...] = ()
    source: Source = "none"
    metadata: Mapping[str, Fact] = field(default_factory=dict)

    @property
    def is_product_page(self) -> bool:
        """Return False for a soft 404 or a challenge, which shops answer with status 200."""
        return self.kind == "product"


def parse_product_page(html: bytes | str, url: str) -> ProductPage:
    """Read a page that was fetched from `url`; picture addresses come back absolute, without repetition."""
    text = (html if isinstance(html, str) else _decode(html[: 4 * MAX_CHARACTERS]))[:MAX_CHARACTERS]
    try:
        soup = BeautifulSoup(text, "lxml")
    except (ParserRejectedMarkup, RecursionError, ValueError):
        return ProductPage()
    products = json_ld_products(soup)
    kind, title = _kind(soup, products), _title(soup)
    if kind == "other" and (_CHALLENGE_TITLE.search(title) or soup.select_one(_CHALLENGE_MARKER)):
        kind = "challenge"
    if kind != "product":
        return ProductPage(kind, title)
    image_urls, source = _images(soup, products, url)
    return ProductPage(kind, title, image_urls, source, read_metadata(soup, products, title, url))


def original_url(reference: str, page_url: str) -> str | None:
    """Return the address of the full-size picture behind a reference in a page; None where it is no web address.

    A resizer's address gives the picture it was made from if that lies on a known host or on the page's own.
    """
    try:
        own = urlsplit(page_url).hostname
        url = urls.canonical_url(urljoin(page_url, reference.replace("&amp;", "&")), keep_query=True)
        parts = urlsplit(url)
        inner = parse_qs(parts.query).get("url")
        if inner and (parts.hostname in RESIZER_HOSTS or (parts.hostname, parts.path) == (own, "/images")):
            unwrapped = urls.canonical_url(urljoin(page_url, inner[0]))
            if urlsplit(unwrapped).hostname in ORIGINAL_HOSTS | {own}:
                url, parts = unwrapped, urlsplit(unwrapped)
    except ValueError:
        return None
    if parts.hostname in ORIGINAL_HOSTS | {own} and _SIZED_PATH.match(parts.path):
        return urls.origin(url) + _SIZED_PATH.sub("/productimg/original/", parts.path)
    return url


def _decode(content: bytes) -> str:
    content, byte_order = EncodingDetector.strip_byte_order_mark(content)
    declared = EncodingDetector.find_declared_encoding(content, is_html=True)
    for encoding in (byte_order or "utf-8", declared):
        try:
            return content.decode(encoding or "ascii")
        except (LookupError, ValueError):
            continue
    return content.decode("windows-1252", errors="replace")


def _kind(soup: BeautifulSoup, products: list[dict[str, Any]]) -> Kind:
    og_type = soup.select_one('meta[property="og:type"]')
    is_product = products or soup.select_one(_PRODUCT_MARKER) or (og_type and "product" in str(og_type.get("content")))
    return "product" if is_product else "other"


def _title(soup: BeautifulSoup) -> str:
    for selector in ("h1#product-title", "h1.productName_title", "h1", "title"):
        if (found := soup.select_one(selector)) and (text := " ".join(found.get_text(" ").split())):
            return html_entities.unescape(text)[:500]
    return ""


def _images(soup: BeautifulSoup, products: list[dict[str, Any]], url: str) -> tuple[tuple[str, ...], Source]:
    ways: tuple[tuple[Source, Iterator[str]], ...] = (
        ("script", _script_references(soup)),
        ("carousel", _carousel_references(soup)),
        ("json_ld", _json_ld_references(products)),
        ("open_graph", (str(tag.get("content")) for tag in soup.select('meta[property="og:image"][content]'))),
    )
    for source, references in ways:
        found = (original_url(reference, url) for reference in references)
        if image_urls := tuple(dict.fromkeys(image_url for image_url in found if image_url)):
            return image_urls, source
    return (), "none"


def _script_references(soup: BeautifulSoup) -> Iterator[str]:
    """Yield from the first `images` constant that holds any, the product's own scripts before the page's others."""
    own = soup.select("#view-item-container > div:nth-of-type(1) > div script")
    texts = (script.get_text() for script in [*own, *soup.find_all("script")])
    constants = ((text, match.end()) for text in texts for match in _IMAGES_CONSTANT.finditer(text))
    for text, start in islice(constants, _MAX_CONSTANTS):
        if references := list(_references(literal(text, start))):
            yield from references
            return


def _carousel_references(soup: BeautifulSoup) -> Iterator[str]:
    """Yield the largest size of each picture of the shop's pages up to 2024."""
    for wrapper in soup.select(".athenaProductImageCarousel_imageWrapper"):
        sizes = wrapper.select(":scope > span[data-size][data-path]")
        if sizes:
            yield str(max(sizes, key=lambda span: _leading_integer(str(span["data-size"])))["data-path"])
    for image in soup.select("img.athenaProductImageCarousel_image[src]"):
        yield str(image["src"])


def _leading_integer(text: str) -> int:
    digits = re.match(r"[0-9]{1,9}", text)
    return int(digits.group()) if digits else 0


def _json_ld_references(products: list[dict[str, Any]]) -> Iterator[str]:
    for product in products[:1]:
        yield from _references(product.get("image"))
        for variant in variants(product):
            yield from _references(variant.get("image"))


def _references(value: Any) -> Iterator[str]:
    """Yield the picture references of a decoded literal in order: of an object its best key, else all its values."""
    waiting = [value]
    while waiting:
        item = waiting.pop()
        if isinstance(item, str) and item.strip():
            yield item
        elif isinstance(item, list):
            waiting.extend(reversed(item))
        elif isinstance(item, dict):
            best = next((item[key] for key in _IMAGE_KEYS if item.get(key)), None)
            waiting.extend([best] if best else reversed([v for v in item.values() if _may_refer(v)]))


def _may_refer(value: Any) -> bool:
    return value.startswith(("http", "/")) if isinstance(value, str) else isinstance(value, list | dict)
