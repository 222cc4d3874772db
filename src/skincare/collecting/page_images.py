"""Image URLs of the product on a page of any shop, each image once at its largest size.

The first source with a result wins: structured data, og:image, the gallery of the page. Gallery images are read from
src, srcset, <picture>, data attributes (including JSON with sizes) and the enclosing link. Thumbnails, logos, icons,
tracking pixels and images of other products are excluded.
"""

import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any, Final, Literal
from urllib.parse import parse_qsl, unquote, urlencode, urljoin, urlsplit, urlunsplit

from skincare import urls
from skincare.collecting.html_page import Element, HtmlPage, words_of
from skincare.collecting.page_areas import Area
from skincare.collecting.structured_data import variants
from skincare.collecting.structured_products import StructuredProduct
from skincare.collecting.visible_prices import closeness

ImageSource = Literal["script", "carousel", "json_ld", "microdata", "rdfa", "state", "open_graph", "page", "none"]

_MAX_GALLERY: Final = 400
_MAX_JSON: Final = 100_000
_SPACE: Final = re.compile(r"\s")
_MAX_STRUCTURED: Final = 20_000
_TOGETHER: Final = 0.35  # closeness of the images of one gallery
_ORIGINAL_PX: Final = 2_000  # assumed width of a URL without a size: the original
_MIN_SIDE_PX: Final = 150
_IMAGE_KEYS: Final = ("original", "zoom", "large", "url", "contentUrl", "src", "href", "@id")
_NO_PRODUCT: Final = re.compile(
    r"logo|sprite|pixel|spacer|blank|placeholder|loading|loader|spinner|1x1|transparent|icon|favicon|badge|flag|avatar|"
    r"captcha|payment|visa|mastercard|paypal|no[-_]?image|noimage|no[-_]?photo|not[-_]?available|default[-_]|button|"
    r"arrow|star|rating|social|facebook|twitter|banner|tracking|beacon|/ads?/",
    re.IGNORECASE,
)
_EXTENSION: Final = re.compile(r"\.(jpe?g|png|webp|avif|gif|svg|bmp|tiff?|ico)(?=$|[?&#/:;])", re.IGNORECASE)
_NOT_PHOTOS: Final = frozenset({"svg", "gif", "ico", "bmp"})
# Size parameters of image URLs; without them, two sizes of one image have the same URL.
_SIZE_QUERY: Final = frozenset({
    "w", "h", "width", "height", "wid", "hei", "size", "sz", "q", "quality", "qlt", "fmt", "format", "fm",
    "auto", "fit", "dpr", "scale", "resize", "imwidth", "imheight", "sw", "sh", "sm", "odnheight", "odnwidth",
    "odnbg", "op_sharpen", "resmode", "im", "impolicy", "crop", "bg", "bg-color", "strip", "v", "$",
})  # fmt: skip
_SIZE_IN_PATH: Final = re.compile(
    r"\._[A-Z0-9,_%+-]+_(?=\.)|(?<=[/_.-])(?:[wh]_?)?\d{2,4}x\d{0,4}(?=[/_.-])|(?<=[/_-])x\d{2,4}(?=[/_.-])"
    r"|[_-](?:thumb(?:nail)?|small|medium|large|xl|xxl|zoom|grande|mini|big|full|orig(?:inal)?|master|\d{2,4}px)(?=\.)"
    r"|(?<=/)(?:[a-z]{1,2}_[a-z0-9.]+,?)+(?=/)|(?<=/)(?:thumb(?:nail)?s?|small|medium|large|zoom|original)(?=/)"
)
_SIZE: Final = re.compile(r"(?<![0-9a-z])(?:[wh]_?|s[lxys]|u[sx]|ac_s[lxy])?(\d{2,4})(?![0-9a-z])", re.IGNORECASE)
# Lazy loaders and magnifiers keep URLs in data attributes of any name.
_MAGNIFIED: Final = re.compile(r"zoom|large|hi-?res|full|big|orig", re.IGNORECASE)
_REDUCED: Final = re.compile(r"thumb|small|tiny|placeholder|low|preview", re.IGNORECASE)
_GALLERY_WORDS: Final = frozenset({
    "product", "gallery", "main", "zoom", "image", "images", "photo", "photos", "picture", "pictures", "hero",
    "primary", "media", "pdp",
})  # fmt: skip


@dataclass(frozen=True)
class _SizedUrl:
    """One URL of an image with its declared width in pixels, 0 if unknown."""

    address: str
    width: int = 0


def page_images(page: HtmlPage, products: Iterable[StructuredProduct]) -> tuple[tuple[str, ...], ImageSource]:
    """Return the image URLs of the product and their source."""
    candidates: list[tuple[ImageSource, list[_SizedUrl]]] = [
        (
            _image_source(product.source),
            [_SizedUrl(one) for one in islice(structured_references(product.block), _MAX_STRUCTURED)],
        )
        for product in products
    ]
    metas = ("og:image:secure_url", "og:image", "og:image:url", "twitter:image", "twitter:image:src")
    from_meta = [_SizedUrl(value) for name in metas for value in page.meta.get(name, ())[:20]]
    links = [_SizedUrl(one.get("href")) for one in page.tagged("link") if one.get("rel") == "image_src"]
    candidates += [("open_graph", from_meta + links), ("page", list(_gallery(page)))]
    every = [named for _, names in candidates for named in names]
    for source, names in candidates:
        if found := _distinct(names, every, page):
            return found, source
    return (), "none"


def structured_references(block: dict[str, Any]) -> Iterator[str]:
    """Yield the image references of a structured product and its variants."""
    yield from references(block.get("image"))
    yield from references(block.get("photo"))
    for variant in variants(block):
        yield from references(variant.get("image"))


def references(value: Any) -> Iterator[str]:
    """Yield the image references of a decoded literal in order; an object gives its best key, else all its values."""
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


def absolute(reference: str, page: HtmlPage) -> str | None:
    """Resolve a reference against the page's base URL; None if it is not a valid URL."""
    if "\ufffd" in reference or reference.lstrip().startswith("#"):
        return None
    try:
        joined = urljoin(page.base_url, reference.strip().replace("&amp;", "&"))
        is_page = joined.partition("#")[0] == page.url.partition("#")[0]
        return None if is_page else urls.canonical_url(joined, keep_query=True)
    except ValueError:
        return None


def same_image(address: str) -> str:
    """Return a URL without size parameters, equal for all sizes of one image."""
    parts = urlsplit(address)
    kept = [(key, value) for key, value in parse_qsl(parts.query) if key.lower() not in _SIZE_QUERY]
    path = _SIZE_IN_PATH.sub("", unquote(parts.path))
    return urlunsplit(
        ("", parts.netloc.removeprefix("www."), re.sub(r"\.(jpe?g|png|webp|avif)$", "", path), urlencode(kept), "")
    )


def _image_source(source: str) -> ImageSource:
    sources: dict[str, ImageSource] = {"json_ld": "json_ld", "microdata": "microdata", "rdfa": "rdfa"}
    return sources.get(source, "state")


def _may_refer(value: Any) -> bool:
    return value.startswith(("http", "/")) if isinstance(value, str) else isinstance(value, list | dict)


def _distinct(names: list[_SizedUrl], every: list[_SizedUrl], page: HtmlPage) -> tuple[str, ...]:
    """Return each image once, at the largest size in any source."""
    largest: dict[str, tuple[int, str]] = {}
    wanted: dict[str, None] = {}
    for named, is_own in [*((one, True) for one in names), *((one, False) for one in every)]:
        address = absolute(named.address, page)
        if not address or not _is_photo(address):
            continue
        image = same_image(address)
        if is_own:
            wanted.setdefault(image)
        if image in wanted:
            size = named.width or _size_in(address, _ORIGINAL_PX)
            if image not in largest or size > largest[image][0]:
                largest[image] = (size, address)
    return tuple(largest[image][1] for image in wanted if not 0 < largest[image][0] < _MIN_SIDE_PX)


def _is_photo(address: str) -> bool:
    path = unquote(urlsplit(address).path)
    extension = _EXTENSION.findall(path)
    if extension and extension[-1].lower() in _NOT_PHOTOS:
        return False
    return not _NO_PRODUCT.search(path.rpartition("/")[2]) and len(path) > 1


def _size_in(address: str, unknown: int = 0) -> int:
    """Return the side in pixels from the URL; `unknown` if it has none."""
    parts = urlsplit(address)
    size_parameters = [f"{key}={value}" for key, value in parse_qsl(parts.query) if key.lower() in _SIZE_QUERY]
    named = " ".join([*_SIZE_IN_PATH.findall(parts.path), *size_parameters])
    if re.search(r"orig|zoom|full|master|large|big", named, re.IGNORECASE):
        return 3000
    if re.search(r"thumb|small|mini", named, re.IGNORECASE):
        return 100
    sides = [int(side) for side in _SIZE.findall(re.sub(r"(?<=[0-9])x(?=[0-9])", " ", named))]
    return max(sides, default=unknown)


def _gallery(page: HtmlPage) -> Iterator[_SizedUrl]:
    """Yield the largest size of each gallery image, most likely product image first."""
    rated = []
    for element in page.by_tag.get("img", ())[:_MAX_GALLERY]:
        names = list(_sizes_of(page, element))
        if names and (score := _likely(page, element, names)) > 0:
            rated.append((-score, element.place, names))
    rated.sort(key=lambda one: one[:2])
    for score, place, names in rated[:12]:
        best_score, best_place, _ = rated[0]
        if place == best_place or (score <= best_score + 2.5 and closeness(page, place, best_place) >= _TOGETHER):
            yield max(names, key=lambda named: named.width or _size_in(named.address, _ORIGINAL_PX))


def _sizes_of(page: HtmlPage, element: Element) -> Iterator[_SizedUrl]:
    """Yield the URLs of one <img> at all its sizes."""
    n_better = 0
    for n_better, named in enumerate(_better_sizes(page, element), start=1):  # noqa: B007 - counts
        yield named
    src = element.get("src")
    if src and not src.startswith("data:"):
        # With other sizes present, src is the fallback.
        yield _SizedUrl(src, _pixels(element.get("width")) or (1 if n_better else 0))


def _better_sizes(page: HtmlPage, element: Element) -> Iterator[_SizedUrl]:
    for name, value in element.attrib.items():
        if name.startswith("data-") and not name.endswith("srcset"):
            yield from _in_data(name, value.strip())
    for name in ("srcset", "data-srcset", "data-lazy-srcset"):
        yield from _srcset(element.get(name))
    # The parser may nest later elements in a <source>.
    picture = next((one for one in page.around(element, 5) if one.tag == "picture"), None)
    if picture:
        for source in islice(page.inside(picture, "source"), 10):
            yield from _srcset(source.get("srcset") or source.get("data-srcset"))
    *_, parent = page.around(picture or element, 2)
    if parent.tag == "a" and _EXTENSION.search(parent.get("href")):
        yield _SizedUrl(parent.get("href"), 1200)


def _in_data(name: str, value: str) -> Iterator[_SizedUrl]:
    """Yield the URLs in a data attribute: one URL, or a JSON object of URLs with sizes."""
    if value.startswith("{"):
        yield from _sizes_in_json(value[:_MAX_JSON])
    elif _is_address(value) and ("src" in name or _EXTENSION.search(value)):
        yield _SizedUrl(value, 3_000 if _MAGNIFIED.search(name) else 100 if _REDUCED.search(name) else 0)


def _is_address(value: str) -> bool:
    return 1 < len(value) < 2_000 and not _SPACE.search(value) and not value.startswith("data:")


def _sizes_in_json(text: str) -> Iterator[_SizedUrl]:
    try:
        sizes = json.loads(text)
    except (ValueError, RecursionError):
        return
    for address, sides in islice(sizes.items(), 20) if isinstance(sizes, dict) else ():
        side = max((one for one in sides if isinstance(one, int)), default=0) if isinstance(sides, list) else 0
        if address.startswith(("http", "/")):
            yield _SizedUrl(address, side)


def _srcset(text: str) -> Iterator[_SizedUrl]:
    """Yield the URLs of a srcset; `2x` counts as 800 pixels."""
    for candidate in islice(re.finditer(r"(\S+[^\s,])\s*(?:([0-9.]{1,8})([wx]))?\s*(?:,|$)", text[:20_000]), 30):
        address, number, unit = candidate.groups()
        value = float(number) if number and number.count(".") < 2 and number != "." else 0.0
        yield _SizedUrl(address, int(value if unit == "w" else 400 * value))


def _pixels(text: str | None) -> int:
    found = re.fullmatch(r"\s*([0-9]{1,5})(?:px)?\s*", text or "")
    return int(found[1]) if found else 0


def _likely(page: HtmlPage, element: Element, names: list[_SizedUrl]) -> float:
    """Score an image as product image by size, names and position; 0 excludes it."""
    area = element.area
    if area & (Area.UNSEEN | Area.ASIDE | Area.CHROME):
        return 0.0
    sides = [_pixels(element.get("width")), _pixels(element.get("height"))]
    if any(0 < side < 60 for side in sides):
        return 0.0
    score = 1.0
    largest = max(max(named.width or _size_in(named.address) for named in names), *sides)
    score += 2.0 if largest >= 400 else 1.0 if largest >= 200 else -1.0 if 0 < largest < 100 else 0.0
    *_, parent = page.around(element, 2)
    score -= 2.0 if area & Area.LINKED and not _EXTENSION.search(parent.get("href")) else 0.0
    # A long number in the page's URL is the product id.
    numbers = re.findall(r"[0-9]{5,}", page.url.partition("?")[0])
    score += 1.5 if any(number in named.address for number in numbers for named in names) else 0.0
    score -= 1.0 if area & Area.HIDDEN else 0.0
    container_words = frozenset().union(*(words_of(one) for one in page.around(element, 4)))
    score += min(2.0, 0.7 * len(container_words & _GALLERY_WORDS)) - (
        1.0 if container_words & {"thumb", "thumbs", "thumbnail"} else 0.0
    )
    words = set(re.findall(r"\w+", element.get("alt")[:300].lower()))
    title = set(re.findall(r"\w+", page.title.lower()))
    score += 3.0 * len(words & title) / len(title | words) if words and title else 0.0
    score += 2.0 * closeness(page, element.place, page.title_at) if page.title_at >= 0 else 0.0
    return score
