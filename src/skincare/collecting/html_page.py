"""An HTML page as lists in document order: elements, texts, meta values, title, page areas.

Total: any bytes give an HtmlPage. Elements come from lxml's parser events; building lxml's own tree takes a minute for
a tag with 50,000 attributes. Each element stores the range of its descendants in the lists of elements and texts, so
its content is a slice at any depth.
"""

import contextlib
import html as html_entities
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import urljoin

from bs4.dammit import EncodingDetector
from lxml import etree

from skincare.collecting.page_areas import Area, area_of, words_in

# Real pages are below 2 MB and 10,000 elements.
MAX_CHARACTERS: Final = 4_000_000
MAX_ELEMENTS: Final = 150_000
MAX_ATTRIBUTES: Final = 200

_SURROGATE: Final = re.compile("[\ud800-\udfff]")
_SPACES: Final = re.compile(r"\s+")
_NO_WORDS: Final[frozenset[str]] = frozenset()


@dataclass(slots=True)
class Element:
    """One element; its content ends before the indices `end` and `texts_end`."""

    tag: str
    attrib: dict[str, str]
    place: int
    parent: int  # -1 for the root
    area: int
    texts_at: int
    end: int = 0
    texts_end: int = 0

    def get(self, name: str, default: str = "") -> str:
        """Return an attribute's value."""
        return self.attrib.get(name, default)


@dataclass
class HtmlPage:
    """A page in document order; `owners[i]` is the index of the parent element of `texts[i]`."""

    url: str
    base_url: str = ""
    elements: list[Element] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)
    owners: list[int] = field(default_factory=list)
    by_tag: dict[str, list[Element]] = field(default_factory=dict)
    by_id: dict[str, Element] = field(default_factory=dict)
    meta: dict[str, list[str]] = field(default_factory=dict)  # by lower-case property or name
    title: str = ""
    title_at: int = -1

    def tagged(self, *names: str) -> Iterator[Element]:
        """Yield the elements with these tags, tag by tag."""
        for name in names:
            yield from self.by_tag.get(name, ())

    def inside(self, element: Element, tag: str = "") -> Iterator[Element]:
        """Yield the descendants of an element in order, optionally only those with one tag."""
        for place in range(element.place + 1, element.end):
            if not tag or self.elements[place].tag == tag:
                yield self.elements[place]

    def around(self, element: Element, n: int) -> Iterator[Element]:
        """Yield an element and its next `n` - 1 ancestors."""
        for _ in range(n):
            yield element
            if element.parent < 0:
                return
            element = self.elements[element.parent]

    def first_meta(self, *names: str) -> str:
        """Return the first non-empty value of the meta elements with these names."""
        return next((value for name in names for value in self.meta.get(name, ()) if value.strip()), "")

    def source_of(self, script: Element) -> str:
        """Return the source text of a script."""
        return "".join(self.texts[script.texts_at : script.texts_end])

    def pieces(self, element: Element, max_pieces: int = 2000) -> Iterator[str]:
        """Yield the visible texts of an element."""
        for i in range(element.texts_at, min(element.texts_end, element.texts_at + max_pieces)):
            if not self.elements[self.owners[i]].area & Area.UNSEEN:
                yield self.texts[i]

    def text_of(self, element: Element, max_pieces: int = 2000, max_length: int = 100_000) -> str:
        """Return the visible text of an element on one line."""
        pieces, length = [], 0
        for piece in self.pieces(element, max_pieces):
            pieces.append(piece)
            length += len(piece)
            if length > max_length:
                break
        return _SPACES.sub(" ", " ".join(pieces)).strip()


class _Builder:
    """Parser target for lxml that builds an HtmlPage."""

    def __init__(self, url: str) -> None:
        self.page = HtmlPage(url)
        self._own_path = url.partition("#")[0].partition("?")[0]
        self._open: list[Element] = []
        self._n_ignored = 0
        self._parts: list[str] = []

    def start(self, tag: str, attrib: dict[str, str]) -> None:
        """Add an element with the areas of its parent and its own."""
        self._end_text()
        page = self.page
        place = len(page.elements)
        if self._n_ignored or place >= MAX_ELEMENTS:
            self._n_ignored += 1
            return
        attributes = dict(attrib) if len(attrib) <= MAX_ATTRIBUTES else dict(list(attrib.items())[:MAX_ATTRIBUTES])
        parent, area = (self._open[-1].place, self._open[-1].area) if self._open else (-1, 0)
        area |= area_of(tag, attributes, self._own_path)
        element = Element(tag, attributes, place, parent, area, len(page.texts))
        page.elements.append(element)
        self._open.append(element)
        page.by_tag.setdefault(tag, []).append(element)
        if not attributes:
            return
        if "id" in attributes:
            page.by_id.setdefault(attributes["id"], element)
        if tag == "meta" and (name := attributes.get("property") or attributes.get("name")):
            page.meta.setdefault(name.lower().strip(), []).append(attributes.get("content", ""))

    def end(self, tag: str) -> None:  # noqa: ARG002 - the parser closes in order
        """Close the innermost open element."""
        self._end_text()
        if self._n_ignored:
            self._n_ignored -= 1
        elif self._open:
            self._close(self._open.pop())

    def data(self, text: str) -> None:
        """Add a part of a text."""
        if self._open and not self._n_ignored:
            self._parts.append(text)

    def close(self) -> HtmlPage:
        """Close all open elements and return the page."""
        self._end_text()
        while self._open:
            self._close(self._open.pop())
        return self.page

    def _end_text(self) -> None:
        if self._parts:
            text = "".join(self._parts)
            self._parts.clear()
            if text.strip():
                self.page.texts.append(text)
                self.page.owners.append(self._open[-1].place)

    def _close(self, element: Element) -> None:
        element.end, element.texts_end = len(self.page.elements), len(self.page.texts)


def read_page(html: bytes | str, url: str) -> HtmlPage:
    """Parse a page fetched from `url`; invalid input gives a page without elements."""
    text = (html if isinstance(html, str) else decode(html[: 4 * MAX_CHARACTERS]))[:MAX_CHARACTERS]
    builder = _Builder(url)
    parser = etree.HTMLParser(target=builder, huge_tree=True, encoding="utf-8")
    with contextlib.suppress(etree.LxmlError, ValueError):
        # libxml2 stops at a NUL byte.
        etree.fromstring(_utf8(text).replace(b"\0", b" "), parser=parser)
    page = builder.close()
    page.base_url = _base(page)
    page.title, page.title_at = _main_title(page)
    _clear_around_title(page)
    return page


def _utf8(text: str) -> bytes:
    try:
        return text.encode("utf-8")
    except UnicodeEncodeError:
        # A lone surrogate cannot be encoded.
        return _SURROGATE.sub("\ufffd", text).encode("utf-8")


def decode(content: bytes) -> str:
    """Decode a page by its byte-order mark, as UTF-8, by its declared encoding, else as Windows-1252."""
    content, byte_order = EncodingDetector.strip_byte_order_mark(content)
    declared = EncodingDetector.find_declared_encoding(content, is_html=True)
    for encoding in (byte_order or "utf-8", declared):
        try:
            return content.decode(encoding or "ascii")
        except (LookupError, ValueError):
            continue
    return content.decode("windows-1252", errors="replace")


def words_of(element: Element) -> frozenset[str]:
    """Return the lower-case words of an element's id and classes: `productPrice_old` has product, price, old."""
    attributes = element.attrib
    if not attributes:
        return _NO_WORDS
    return words_in(f"{attributes.get('id', '')} {attributes.get('class', '')}"[:500])


def _base(page: HtmlPage) -> str:
    for base in page.tagged("base"):
        if href := base.get("href"):
            try:
                return urljoin(page.url, href.strip())
            except ValueError:
                break
    return page.url


def _main_title(page: HtmlPage) -> tuple[str, int]:
    """Return the main heading and its index: the heading with the largest overlap with <title> and og:title."""
    titles = [text for one in list(page.tagged("title"))[:1] if (text := _SPACES.sub(" ", page.source_of(one)).strip())]
    wanted = _lower_words(" ".join([page.first_meta("og:title"), *titles])[:1000])
    best: tuple[float, str, int] = (0.0, "", -1)
    for tag, weight in (("h1", 1.0), ("h2", 0.3), ("h3", 0.2)):
        for element in page.by_tag.get(tag, ())[:60]:
            if element.area & Area.UNSEEN:
                continue
            text = html_entities.unescape(page.text_of(element, 50, 500))[:500]
            words = _lower_words(text)
            if not words or (tag != "h1" and not words & wanted):
                continue
            score = weight * (0.1 + len(words & wanted) ** 2 / (len(words) + 1) / (len(wanted) + 1))
            if element.area & (Area.ASIDE | Area.CHROME | Area.HIDDEN | Area.LINKED):
                score *= 0.1
            if score > best[0] + 1e-9:
                best = (score, text, element.place)
    if best[2] >= 0:
        return best[1], best[2]
    marked = _named_element(page)
    title = (page.text_of(marked, 50, 500) if marked else "") or next(iter(titles), "")
    return html_entities.unescape(title)[:500], marked.place if marked else -1


def _clear_around_title(page: HtmlPage) -> None:
    """Clear the areas that contain the main heading: a page wrapper may be named `slider` or `has-reviews`."""
    wrong = page.elements[page.title_at].area & ~Area.UNSEEN if page.title_at >= 0 else 0
    if wrong:
        for element in page.elements:
            element.area &= ~wrong


def _lower_words(text: str) -> set[str]:
    return set(re.findall(r"\w+", text.lower()))


def _named_element(page: HtmlPage) -> Element | None:
    """Return the element marked as the product name, for pages without a main heading."""
    for element in page.elements:
        if not element.attrib or element.area & (Area.UNSEEN | Area.CHROME | Area.ASIDE):
            continue
        words = words_of(element)
        is_title = "product" in words and not words.isdisjoint(("title", "name")) and not element.area & Area.LINKED
        if is_title or element.get("itemprop") == "name":
            return element
    return None
