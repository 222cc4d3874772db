"""Product pages: image URLs in order from each of the four sources, also in malformed and hostile HTML."""

import json
import time
import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from skincare.collecting.metadata import LIMITS
from skincare.collecting.pages import ProductPage, original_url, parse_product_page
from skincare.paths import REPOSITORY

PAGE_URL = "https://www.lookfantastic.com/weleda-skin-food/11111111.html"
CDN = "https://static.thcdn.com/productimg/original"
OTHER_SHOP = REPOSITORY.parent / "shared" / "data" / "cultbeauty_jsonld_products.json"
IMAGES = (f"{CDN}/11111111-1.jpg", f"{CDN}/11111111-2.jpg")


def shop_page(script: str = "", head: str = "") -> str:
    return (
        f"<html><head><title>t</title>{head}</head><body><h1 id='product-title'>Skin\n Food &amp; more</h1>"
        f"<div id='view-item-container'><div><div><script>{script}</script></div></div></div></body></html>"
    )


def json_ld(block: object) -> str:
    return f'<script type="application/ld+json">{json.dumps(block)}</script>'


@pytest.mark.parametrize(
    "literal",
    [
        json.dumps([{"original": url} for url in IMAGES]),
        json.dumps([{"alt": "a]b", "sizes": [[1, 2], [3]], "original": url} for url in IMAGES]),
        json.dumps(IMAGES).replace("/", r"\/"),
        json.dumps([[{"original": IMAGES[0]}], [[{"original": IMAGES[1]}]]]),
        json.dumps({"main": {"original": IMAGES[0]}, "more": [{"original": IMAGES[1]}]}),
        json.dumps([{side: url.replace("original", f"{side}/{side}") for side in ("300", "960")} for url in IMAGES]),
        json.dumps([{"original": url} for url in (*IMAGES, IMAGES[0])]),
        f"[{{'original': '{IMAGES[0]}',}}, {{original: \"{IMAGES[1]}\"}},]",
        f"[{{original: '{IMAGES[0]}' /* front */}}, // back\n {{original: `{IMAGES[1]}`}}]",
        json.dumps([IMAGES[0].removeprefix("https:"), IMAGES[1]]),
    ],
    ids=["plain", "brackets", "slashes", "nested", "object", "sizes", "repeated", "quotes", "comments", "no-scheme"],
)  # fmt: skip
def test_images_are_read_from_the_script_constant(literal: str) -> None:
    page = parse_product_page(shop_page(f"const a = [1];\nconst images = {literal};\nconst images2 = [];"), PAGE_URL)
    assert (page.kind, page.title, page.image_urls, page.source) == ("product", "Skin Food & more", IMAGES, "script")


def test_the_constant_in_the_product_container_takes_precedence() -> None:
    other = "<script>const images = ['https://static.thcdn.com/other.jpg']</script>"
    page = parse_product_page(shop_page(f"const images = {json.dumps(IMAGES)}", head=other), PAGE_URL)
    assert page.image_urls == IMAGES


def test_an_empty_or_malformed_constant_is_skipped() -> None:
    script = f"const images = []; let images = [{{; var images = {json.dumps(IMAGES)};"
    assert parse_product_page(shop_page(script), PAGE_URL).image_urls == IMAGES


@pytest.mark.parametrize(
    "block",
    [
        {"@type": "Product", "image": IMAGES},
        {"@type": ["Thing", "Product"], "image": [{"@type": "ImageObject", "url": url} for url in IMAGES]},
        [{"@type": "BreadcrumbList"}, {"@graph": [{"@type": "Product", "image": IMAGES}]}],
        {"@type": "WebPage", "mainEntity": {"@type": "Product", "image": IMAGES}},
        {"@type": "ProductGroup", "hasVariant": [{"@type": "Product", "image": url} for url in IMAGES]},
        {"@type": "Product", "image": [url.replace("original", "300/300") for url in IMAGES]},
    ],
    ids=["list", "objects", "graph", "main-entity", "range", "sized"],
)
def test_images_are_read_from_json_ld(block: object) -> None:
    page = parse_product_page(shop_page(head=json_ld(block)), PAGE_URL)
    assert (page.image_urls, page.source) == (IMAGES, "json_ld")


def test_the_largest_size_is_read_from_the_old_carousel() -> None:
    spans = "".join(
        f'<div class="athenaProductImageCarousel_imageWrapper"><span data-size="{size}" data-path="{url}"></span>'
        f'<span data-size="50" data-path="/small.jpg"></span></div>'
        for size, url in zip((600, 1600), IMAGES, strict=True)
    )
    page = parse_product_page(f'<h1 class="productName_title">A</h1>{spans}', PAGE_URL)
    assert (page.image_urls, page.source) == (IMAGES, "carousel")


def test_images_are_read_from_open_graph() -> None:
    meta = f'<meta property="og:image" content="{IMAGES[0]}">'
    page = parse_product_page(shop_page(head=meta), PAGE_URL)
    assert (page.image_urls, page.source) == (IMAGES[:1], "open_graph")


def test_images_of_other_listed_products_are_ignored() -> None:
    listing = {"@type": "ItemList", "itemListElement": [{"@type": "Product", "image": IMAGES[0]}]}
    assert parse_product_page(f"<h1>All oils</h1>{json_ld(listing)}", PAGE_URL) == ProductPage("other", "All oils")


@pytest.mark.parametrize(
    ("html", "kind"),
    [
        (b"", "other"),
        (b"<h1>Sorry, this page is gone</h1>", "other"),
        (b"<title>Just a moment...</title><div id='challenge-form'></div>", "challenge"),
        (b"<h1>Access Denied</h1>", "challenge"),
        (b"<title>Shop</title><div class='g-recaptcha'></div>", "challenge"),
        (b"<h1 class='productName_title'>Captcha Cream</h1>", "product"),
        (b"<meta property='og:type' content='og:product'>", "product"),
        (b"\xff\xd8\xff\xe0\x00\x10JFIF", "other"),
    ],
)
def test_soft_404s_and_challenges_are_not_product_pages(html: bytes, kind: str) -> None:
    assert parse_product_page(html, PAGE_URL).kind == kind


@pytest.mark.parametrize(
    ("reference", "original"),
    [
        (f"{CDN}/1-1.jpg", f"{CDN}/1-1.jpg"),
        ("https://static.thcdn.com/productimg/960/960/1-1.png?x=1", f"{CDN}/1-1.png"),
        (f"https://www.lookfantastic.com/images?url={CDN}/1-1.jpg&format=webp&w=300", f"{CDN}/1-1.jpg"),
        (
            "https://main.thgimages.com/?url=https%3A%2F%2Fstatic.thcdn.com%2Fproductimg%2F960%2F960%2F1.jpg&w=3",
            f"{CDN}/1.jpg",
        ),
        ("https://main.thgimages.com/?url=http://10.0.0.1/a.jpg", "https://main.thgimages.com/?url=http://10.0.0.1/a.jpg"),
        ("https://evil.example/images?url=http://static.thcdn.com/a", "https://evil.example/images?url=http://static.thcdn.com/a"),
        ("/media/a.jpg?v=1&amp;w=2", "https://www.lookfantastic.com/media/a.jpg?v=1&w=2"),
        ("a b.jpg#front", "https://www.lookfantastic.com/weleda-skin-food/a%20b.jpg"),
        ("data:image/png;base64,AAAA", None),
        ("file:///etc/passwd", None),
        ("https://user:pass@static.thcdn.com/a.jpg", None),
        ("http://[bad/a.jpg", None),
        ("https://a.example/" + "x" * 3000, None),
    ],
)  # fmt: skip
def test_references_become_urls_of_originals(reference: str, original: str | None) -> None:
    assert original_url(reference, PAGE_URL) == original


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "iso-8859-1", "windows-1252"])
def test_declared_encodings_are_decoded(encoding: str) -> None:
    html = f"<meta charset='{encoding}'><h1 id='product-title'>Crème Concentré</h1>".encode(encoding)
    assert parse_product_page(html, PAGE_URL).title == "Crème Concentré"


@pytest.mark.parametrize("declared", ["klingon", "zlib_codec", "idna", "utf-16", ""])
def test_a_wrong_encoding_is_ignored(declared: str) -> None:
    html = f"<meta charset='{declared}'><h1 id='product-title'>Balm ".encode() + b"\xe9\x9f\xff</h1>"
    assert parse_product_page(html, PAGE_URL).is_product_page


HOSTILE_PAGES = {
    "deep tags": "<div>" * 100_000,
    "deep json": shop_page("const images = " + "[" * 100_000),
    "deep json-ld": shop_page(head=f'<script type="application/ld+json">{"[" * 50_000}</script>'),
    "deep literal": shop_page("const images = " + "[{a:" * 20_000 + "'x'"),
    "many constants": shop_page("const images = [{;" * 100_000),
    "surrogate": shop_page('const images = ["https://a.example/\\ud800.jpg", "\ud800"]'),
    "huge number": shop_page("const images = [" + "9" * 10_000 + "]"),
    "NUL": shop_page("const images = [\0") + "\0",
    "many blocks": shop_page() + "<i aria-controls='x'>Size</i>" * 8_000 + "<p id='x'>" + "<b>" * 8_000,
    "open scripts": shop_page(head=json_ld({"@type": "Product", "description": "<script " * 12_000})),
    "attributes": "<p " + " ".join(f"a{n}=1" for n in range(50_000)) + ">",
}


@pytest.mark.parametrize("name", HOSTILE_PAGES)
def test_a_hostile_page_is_parsed_in_time_without_an_exception(name: str) -> None:
    started = time.process_time()
    assert parse_product_page(HOSTILE_PAGES[name], PAGE_URL).image_urls == ()
    assert time.process_time() - started < 20


def test_a_long_list_is_complete_and_in_order() -> None:
    urls = [f"{CDN}/{n}.jpg" for n in range(10_000)]
    page = parse_product_page(shop_page(f"const images = {json.dumps(urls)}"), PAGE_URL)
    assert page.image_urls == tuple(urls)


@pytest.mark.slow
def test_a_page_of_100_megabytes_is_truncated() -> None:
    page = parse_product_page(shop_page().encode() + b"<p>more</p>" * 9_000_000, PAGE_URL)
    assert page.is_product_page


JSON_KEYS = ("original", "url", "image", "@type", "@graph", "name", "price", "value")
JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.floats() | st.text(max_size=20) | st.sampled_from(["//a.example/1.jpg", "//", "/"]),
    lambda inner: st.lists(inner, max_size=4)
    | st.dictionaries(st.sampled_from(JSON_KEYS), inner, max_size=4),
    max_leaves=12,
)  # fmt: skip
FRAGMENTS = st.lists(
    st.sampled_from(["<script>", "</script>", "const images = ", "[", "]", "{", "}", "'", '"', "original:", ",",
                     "//a/1.jpg", "<div id='view-item-container'>", "<meta property='og:image' content='x'>",
                     "<!--", "\\u", "\0", "é"])
    | st.text(max_size=5),
    max_size=40,
).map("".join)  # fmt: skip
PRODUCT_FIELDS = (
    "name",
    "brand",
    "description",
    "size",
    "offers",
    "ingredients",
    "countryOfOrigin",
    "manufacturer",
    "sku",
)
PAGES = (
    st.binary(max_size=300)
    | FRAGMENTS
    | FRAGMENTS.map(shop_page)
    | JSON_VALUES.map(lambda value: shop_page(f"const images = {json.dumps(value)}"))
    | JSON_VALUES.map(lambda value: shop_page(head=json_ld({"@type": "Product", "image": value})))
    | JSON_VALUES.map(lambda value: shop_page(head=json_ld(value)))
    | st.dictionaries(st.sampled_from(PRODUCT_FIELDS), JSON_VALUES).map(
        lambda values: shop_page(head=json_ld({"@type": "ProductGroup", **values, "hasVariant": [values]}))
    )
)


def check_any_page(html: bytes | str, url: str) -> None:
    page = parse_product_page(html, url)
    assert len(set(page.image_urls)) == len(page.image_urls)
    assert all(image_url.startswith(("http://", "https://")) and image_url.isascii() for image_url in page.image_urls)
    assert (page.source == "none") == (not page.image_urls)
    for field, fact in page.metadata.items():
        assert field in LIMITS
        assert 0 < len(fact.value) <= LIMITS[field]
        assert fact.value == " ".join(fact.value.split())
        assert all(unicodedata.category(character)[0] != "C" for character in fact.value)


URLS = st.just(PAGE_URL) | st.text(max_size=20) | st.from_regex(r"https?://[\w.:\[\]-]{0,20}", fullmatch=True)


@settings(max_examples=150, deadline=None)
@given(PAGES, URLS)
def test_any_page_gives_valid_urls_without_an_exception(html: bytes | str, url: str) -> None:
    check_any_page(html, url)


@pytest.mark.slow
@settings(max_examples=2000, deadline=None)
@given(PAGES, URLS)
def test_2000_generated_pages_give_valid_urls_without_an_exception(html: bytes | str, url: str) -> None:
    check_any_page(html, url)


@pytest.mark.skipif(not OTHER_SHOP.is_file(), reason="the JSON-LD of this shop is not part of the repository")
def test_real_json_ld_of_another_shop_gives_the_original_images() -> None:
    blocks = json.loads(OTHER_SHOP.read_text(encoding="utf-8"))
    for block in blocks:
        page = parse_product_page(json_ld(block), "https://www.cultbeauty.co.uk/a/1.html")
        assert page.is_product_page
        assert page.image_urls[0].startswith(f"{CDN}/{block['sku']}-")
