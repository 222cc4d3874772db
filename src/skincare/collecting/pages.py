"""Parser of product pages: HTML in, image URLs and metadata of the product out.

Pure and total: any bytes and any URL give a ProductPage, never an exception. html_page builds the element tree,
structured_products reads structured data, visible_prices finds the displayed prices, page_kinds classifies the page,
page_images and page_metadata extract the result.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from typing import Final
from urllib.parse import parse_qs, urljoin, urlsplit

from skincare import urls
from skincare.collecting.html_page import HtmlPage, read_page
from skincare.collecting.metadata import Fact
from skincare.collecting.page_images import ImageSource, page_images, references
from skincare.collecting.page_kinds import Kind, is_challenge, is_product_page
from skincare.collecting.page_metadata import read_metadata
from skincare.collecting.structured_data import parse_literal
from skincare.collecting.structured_products import read_structured_data
from skincare.collecting.visible_prices import buy_buttons, visible_prices

ORIGINAL_HOSTS: Final = frozenset({"static.thcdn.com"})
RESIZER_HOSTS: Final = frozenset({"www.lookfantastic.com", "lookfantastic.com", "main.thgimages.com"})

# Limits the time for a page with many broken constants.
_MAX_CONSTANTS: Final = 20
_IMAGES_CONSTANT: Final = re.compile(r"\b(?:const|let|var)\s+images\s*=\s*(?=[\[{])")
_SIZED_PATH: Final = re.compile(r"^/productimg/\d+/\d+/")
# Markers of the LookFantastic shops, whose scripts and carousels take precedence.
_OWN_IDS: Final = ("view-item-container", "product-title")
_OWN_CLASSES: Final = frozenset({"productName_title", "athenaProductImageCarousel_image"})


@dataclass(frozen=True)
class ProductPage:
    """A parsed page: its kind, image URLs in page order, and metadata."""

    kind: Kind = "other"
    title: str = ""
    image_urls: tuple[str, ...] = ()
    source: ImageSource = "none"
    metadata: Mapping[str, Fact] = field(default_factory=dict)

    @property
    def is_product_page(self) -> bool:
        """Return False for soft 404s and challenges, which have status 200."""
        return self.kind == "product"


def parse_product_page(html: bytes | str, url: str) -> ProductPage:
    """Parse a page fetched from `url`; image URLs are absolute and distinct."""
    page = read_page(html, url)
    structured, buttons = read_structured_data(page), buy_buttons(page)
    shown = visible_prices(page, buttons)
    is_own = _has_own_marks(page)
    if not (is_own or is_product_page(page, structured, shown, buttons)):
        return ProductPage("challenge" if is_challenge(page) else "other", page.title)
    image_urls, source = _own_images(page) if is_own else ((), "none")
    if not image_urls:
        found, source = page_images(page, structured.products)
        originals = (original_url(one, url) for one in found)
        image_urls = tuple(dict.fromkeys(one for one in originals if one))
    metadata = read_metadata(page, structured.products, shown)
    return ProductPage("product", page.title, image_urls, source if image_urls else "none", metadata)


def original_url(reference: str, page_url: str) -> str | None:
    """Return the URL of the full-size image for a reference in a page; None if it is not a valid URL.

    A resizer URL is replaced by its original if that is on a known host or on the page's own.
    """
    if "\ufffd" in reference:
        return None
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


def _has_own_marks(page: HtmlPage) -> bool:
    if any(name in page.by_id for name in _OWN_IDS):
        return True
    return any(not _OWN_CLASSES.isdisjoint(one.get("class").split()) for one in page.tagged("h1", "img"))


def _own_images(page: HtmlPage) -> tuple[tuple[str, ...], ImageSource]:
    candidates: tuple[tuple[ImageSource, Iterator[str]], ...] = (
        ("script", _script_references(page)),
        ("carousel", _carousel_references(page)),
    )
    for source, found in candidates:
        originals = (original_url(reference, page.url) for reference in found)
        if image_urls := tuple(dict.fromkeys(one for one in originals if one)):
            return image_urls, source
    return (), "none"


def _script_references(page: HtmlPage) -> Iterator[str]:
    """Yield the references of the first non-empty `images` constant, scripts in the product container first."""
    container = page.by_id.get("view-item-container")
    own = page.inside(container, "script") if container else ()
    texts = (page.source_of(script) for script in [*own, *page.tagged("script")])
    constants = ((text, match.end()) for text in texts for match in _IMAGES_CONSTANT.finditer(text))
    for text, start in islice(constants, _MAX_CONSTANTS):
        if found := list(references(parse_literal(text, start))):
            yield from found
            return


def _carousel_references(page: HtmlPage) -> Iterator[str]:
    """Yield the largest size of each image in the carousel of LookFantastic pages up to 2024."""
    for element in page.elements:
        if "athenaProductImageCarousel_imageWrapper" in element.get("class").split():
            spans = (span for span in page.inside(element, "span") if span.parent == element.place)
            sizes = [span for span in spans if span.get("data-size") and span.get("data-path")]
            if sizes:
                yield max(sizes, key=lambda span: _leading_integer(span.get("data-size"))).get("data-path")
    for image in page.tagged("img"):
        if "athenaProductImageCarousel_image" in image.get("class").split() and "src" in image.attrib:
            yield image.get("src")


def _leading_integer(text: str) -> int:
    digits = re.match(r"[0-9]{1,9}", text)
    return int(digits.group()) if digits else 0
