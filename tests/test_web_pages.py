"""Any shop's pages: each kind of product page is read, with its price, brand and image; nothing else is."""

import csv
import gzip

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from skincare.collecting.pages import parse_product_page
from tests import other_pages
from tests.shop_pages import SHOWN_ONLY, STATED, URL

PRODUCTS = {**SHOWN_ONLY, **STATED}
OTHERS = {**other_pages.LISTS, **other_pages.SEARCHES, **other_pages.EDITORIALS, **other_pages.ERRORS}


def value(page, field):
    return page.metadata[field].value if field in page.metadata else None


@pytest.mark.parametrize("name", PRODUCTS)
def test_a_product_page_is_read(name):
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
def test_other_pages_are_no_products(name, address):
    page = parse_product_page(OTHERS[name], address)
    assert (page.kind, page.image_urls, dict(page.metadata)) == ("other", (), {})


@pytest.mark.parametrize("name", other_pages.CHALLENGES)
def test_a_challenge_is_told_from_a_page(name):
    assert parse_product_page(other_pages.CHALLENGES[name], URL).kind == "challenge"
