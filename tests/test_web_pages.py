"""Pages of any shop: product pages are parsed with price, brand and images; other pages are rejected."""

import csv
import gzip
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from skincare.collecting.pages import parse_product_page
from tests import other_pages
from tests.shop_pages import STRUCTURED, UNUSUAL, URL, VISIBLE_ONLY

PRODUCTS = {**VISIBLE_ONLY, **STRUCTURED}
OTHERS = {**other_pages.LISTS, **other_pages.SEARCHES, **other_pages.EDITORIALS, **other_pages.ERRORS}


def value(page, field):
    return page.metadata[field].value if field in page.metadata else None


@pytest.mark.parametrize("name", PRODUCTS)
def test_product_pages_are_parsed(name):
    kind = PRODUCTS[name]
    page = parse_product_page(kind.html, URL)
    assert page.kind == "product"
    assert (value(page, "price"), value(page, "currency"), value(page, "brand")) == (
        kind.price,
        kind.currency,
        kind.brand,
    )
    assert tuple(url.removeprefix("https://shop.example") for url in page.image_urls) == kind.images
    assert value(page, "name").endswith("Serum 30ml")


@pytest.mark.parametrize("address", ["https://shop.example/skin/face", "https://shop.example/p/rose/1234567.html"])
@pytest.mark.parametrize("name", OTHERS)
def test_other_pages_are_not_product_pages(name, address):
    page = parse_product_page(OTHERS[name], address)
    assert (page.kind, page.image_urls, dict(page.metadata)) == ("other", (), {})


@pytest.mark.parametrize("name", other_pages.CHALLENGES)
def test_challenges_are_recognised(name):
    assert parse_product_page(other_pages.CHALLENGES[name], URL).kind == "challenge"


# -- unusual but valid pages


@pytest.mark.parametrize("name", UNUSUAL)
def test_unusual_pages_are_parsed(name):
    html, images = UNUSUAL[name]
    page = parse_product_page(html, URL)
    assert page.kind == "product"
    assert [url.removeprefix("https://shop.example") for url in page.image_urls] == images


# -- hostile pages


HOSTILE = {
    "nested items": "<div itemscope itemtype='http://schema.org/Product' itemprop=x>t" * 60_000,
    "nested properties": "<div itemscope itemtype='http://schema.org/Product'>" + "<div itemprop=x>t1" * 60_000,
    "prices": "<h1>Rose</h1>" + "".join(f"<p class=price>£{i}.50</p>" for i in range(60_000)),
    "texts of digits": "<h1>Rose</h1>" + ("<p>" + "1 " * 190) * 8_000,
    "images": "<h1>Rose</h1>" + "".join(f"<img src=/i{i}.jpg width=500>" for i in range(60_000)),
    "srcset": "<h1>Rose</h1><img srcset='" + "/a.jpg 1w, " * 200_000 + "'>",
    "open states": "<h1>Rose</h1><script>price: 1; " + "var a = {" * 200_000 + "</script>",
    "deep state": "<h1>Rose</h1><script>price: 1; var a = " + "[" * 1_000_000 + "</script>",
    "many states": "<h1>Rose</h1>" + "<script>var a = {price: 1, name: 'x'}</script>" * 40_000,
    "deep json-ld": "<script type=application/ld+json>" + "[{" * 500_000 + "</script>",
    "offers": '<script type=application/ld+json>{"@type":"Product","name":"R","offers":['
    + ",".join(['{"price":1}'] * 100_000) + "]}</script>",
    "attributes": "<p " + " ".join(f'a{n}="<"' for n in range(200_000)) + ">",
    "style": "<h1>x</h1><p style='" + "font:" * 500_000 + "'>£1.00</p>",
    "entities": "<h1>x</h1><p>" + "&amp;" * 400_000,
    "labels": "<h1>x</h1>" + "<b>Brand</b>" * 100_000,
    "brands": "<h1>x</h1>" + ("<b class=brand>" + "by " * 25) * 20_000,
    "buttons": "<h1>x</h1>" + "<button>add to</button>" * 80_000,
    "comments": "<!--" * 500_000,
    "marks": "<script type=application/ld+json>" + "/*" * 1_000_000 + "</script>",
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_page_takes_less_than_10_s(name):
    started = time.process_time()
    parse_product_page(HOSTILE[name], URL)
    assert time.process_time() - started < 10


WORDS = st.sampled_from(
    ["£15.00", "15", "€", "Brand:", "Acme", "Add to cart", "1.299,00 €", "12€99", "Rose", "", "$", "-", "00"]
)
TAGS = st.sampled_from(["div", "p", "span class=price", "del", "b class=brand", "button", "sup", "a href=/x", "h1", "td", "form",
                        "div itemscope itemtype=http://schema.org/Product", "span itemprop=price", "i itemprop=brand",
                        "div typeof=Product", "b property=name", "img src=/a.jpg", "script type=application/ld+json", "form",
                        "meta property=og:type content=product", "meta property=og:price:amount content=99"])  # fmt: skip


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(TAGS, WORDS), max_size=40))
def test_any_nesting_gives_valid_metadata(pieces):
    page = parse_product_page("".join(f"<{tag}>{word}" for tag, word in pieces), URL)
    check(page)


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=400), st.sampled_from(["utf-8", "utf-16", "shift_jis", "euc-kr", "klingon", ""]))
def test_any_bytes_in_any_encoding_are_parsed(content, encoding):
    check(parse_product_page(f"<meta charset='{encoding}'><h1>A</h1><p class=price>".encode() + content, URL))


def check(page):
    assert (page.kind == "product") or not (page.image_urls or page.metadata)
    if price := value(page, "price"):
        assert 0 < float(price) < 1e9
    if currency := value(page, "currency"):
        assert price
        assert len(currency) == 3


# -- real pages


@pytest.mark.slow
def test_real_pages_of_many_shops_are_parsed(real_data):
    """Lower bounds of the results of benchmarks/page_reading.py."""
    with (real_data / "pages.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    pages = [parse_product_page(gzip.decompress((real_data / row["file"]).read_bytes()), row["url"]) for row in rows]
    assert sum(page.is_product_page and bool(page.image_urls) for page in pages) >= 0.9 * len(pages)
    priced = [(row, page) for row, page in zip(rows, pages, strict=True) if row["price"]]
    n_correct = sum(
        any(float(one) == float(value(page, "price") or 0) for one in row["price"].split("|")) for row, page in priced
    )
    assert n_correct >= 0.85 * len(priced)
