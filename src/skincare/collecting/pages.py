"""Product pages: HTML in, the addresses of the product's images and its metadata out.

Pure and total: any bytes and any address give a ProductPage, never an exception. Each step is a module of its own:
html_page walks the tree, stated_products reads what is stated for machines, visible_prices what is shown,
page_kinds decides whether it is a product's page, page_images and page_metadata say what of.
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
from skincare.collecting.script_data import parse_literal
from skincare.collecting.structured_products import read_structured_data
from skincare.collecting.visible_prices import buy_buttons, visible_prices

ORIGINAL_HOSTS: Final = frozenset({"static.thcdn.com"})
RESIZER_HOSTS: Final = frozenset({"www.lookfantastic.com", "lookfantastic.com", "main.thgimages.com"})

# A page that repeats a broken constant for ever must not cost a decoding each time.
_MAX_CONSTANTS: Final = 20
_IMAGES_CONSTANT: Final = re.compile(r"\b(?:const|let|var)\s+images\s*=\s*(?=[\[{])")
_SIZED_PATH: Final = re.compile(r"^/productimg/\d+/\d+/")
# Marks of the reference's shop and its sister shops, whose scripts and carousels are read first.
_OWN_IDS: Final = ("view-item-container", "product-title")
_OWN_CLASSES: Final = frozenset({"productName_title", "athenaProductImageCarousel_image"})


@dataclass(frozen=True)
class ProductPage:
    """What one page says: whether it shows a product at all, and its images in the page's order, its metadata."""

    kind: Kind = "other"
    title: str = ""
    image_urls: tuple[str, ...] = ()
    source: ImageSource = "none"
    metadata: Mapping[str, Fact] = field(default_factory=dict)

    @property
    def is_product_page(self) -> bool:
        """Return False for a soft 404 or a challenge, which shops answer with status 200."""
        return self.kind == "product"


def parse_product_page(html: bytes | str, url: str) -> ProductPage:
    """Read a page that was fetched from `url`; image addresses come back absolute, without repetition."""
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
    """Return the address of the full-size image behind a reference in a page; None where it is no web address.

    A resizer's address gives the image it was made from if that lies on a known host or on the page's own.
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
    ways: tuple[tuple[ImageSource, Iterator[str]], ...] = (
        ("script", _script_references(page)),
        ("carousel", _carousel_references(page)),
    )
    for source, found in ways:
        originals = (original_url(reference, page.url) for reference in found)
        if image_urls := tuple(dict.fromkeys(one for one in originals if one)):
            return image_urls, source
    return (), "none"


def _script_references(page: HtmlPage) -> Iterator[str]:
    """Yield from the first `images` constant that holds any, the product's own scripts before the page's others."""
    container = page.by_id.get("view-item-container")
    own = page.inside(container, "script") if container else ()
    texts = (page.source_of(script) for script in [*own, *page.tagged("script")])
    constants = ((text, match.end()) for text in texts for match in _IMAGES_CONSTANT.finditer(text))
    for text, start in islice(constants, _MAX_CONSTANTS):
        if found := list(references(parse_literal(text, start))):
            yield from found
            return


def _carousel_references(page: HtmlPage) -> Iterator[str]:
    """Yield the largest size of each image of the shop's pages up to 2024."""
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
