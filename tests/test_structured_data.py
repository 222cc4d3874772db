"""Microdata as the outside library reads it, and the statements of a page told apart."""

import pytest
from extruct.w3cmicrodata import MicrodataExtractor
from lxml.html import document_fromstring

from skincare.collecting.html_page import read_page
from skincare.collecting.structured_data import json_ld_blocks, microdata_blocks, rdfa_blocks, types_of
from skincare.collecting.structured_products import read_structured_data

URL = "https://shop.example/products/rose"
OFFER = "<div itemprop='offers' itemscope itemtype='http://schema.org/Offer'>{}</div>"
MICRODATA = {
    "texts": "<p itemprop='name'>Rose <b>Serum</b></p><p itemprop='sku'>12</p>",
    "contents": "<meta itemprop='name' content='Rose'><span itemprop='price' content='7.00'>7</span>",
    "links": "<a itemprop='url' href='https://a.example/a'>x</a><img itemprop='image' src='https://a.example/a.jpg'>",
    "data and time": "<data itemprop='gtin' value='1'>x</data><time itemprop='from' datetime='2021-01-01'>x</time>",
    "several values": "<img itemprop='image' src='https://a.example/1.jpg'><b itemprop='image'>https://a.example/2</b>",
    "two names": "<span itemprop='name alternateName'>Rose</span>",
    "an item inside": OFFER.format("<meta itemprop='price' content='7'><span itemprop='priceCurrency'>GBP</span>"),
    "two items inside": OFFER.format("<b itemprop='price'>7</b>") + OFFER.format("<b itemprop='price'>8</b>"),
    "item in item in item": OFFER.format(
        "<div itemprop='seller' itemscope itemtype='http://schema.org/Organization'><b itemprop='name'>Acme</b></div>"),
    "beside": "<b itemprop='name'>Rose</b></div>"
    "<div itemscope itemtype='http://schema.org/Product'><b itemprop='name'>Lily</b>",
}  # fmt: skip


def in_one_shape(item):
    """Return extruct's item as ours."""
    if isinstance(item, list):
        return [in_one_shape(one) for one in item]
    if not isinstance(item, dict):
        return item
    properties = {name: in_one_shape(value) for name, value in item.get("properties", {}).items()}
    return {"@type": [item["type"]], **properties}


@pytest.mark.parametrize("name", MICRODATA)
def test_microdata_is_read_as_extruct_reads_it(name):
    html = f"<html><body><div itemscope itemtype='http://schema.org/Product'>{MICRODATA[name]}</div></body></html>"
    theirs = MicrodataExtractor().extract_items(document_fromstring(html), URL)
    assert microdata_blocks(read_page(html, URL)) == [in_one_shape(item) for item in theirs]


def test_rdfa_has_the_shape_of_microdata():
    html = (
        "<div vocab='http://schema.org/' typeof='schema:Product'><b property='schema:name'>Rose</b>"
        "<div property='offers' typeof='Offer'><i property='price' content='7'>seven</i></div></div>"
    )
    (block,) = rdfa_blocks(read_page(html, URL))
    assert types_of(block) == {"product"}
    assert (block["name"], block["offers"]["price"]) == ("Rose", "7")


def test_references_in_a_graph_are_filled_in_and_may_be_circular():
    script = (
        '{"@graph": [{"@id": "#p", "@type": "Product", "name": "Rose", "offers": {"@id": "#o"}},'
        '{"@id": "#o", "@type": "Offer", "price": 7, "itemOffered": {"@id": "#p"}}]}'
    )
    page = read_page(f"<script type='application/ld+json'>{script}</script>", URL)
    product = next(block for block in json_ld_blocks(page) if types_of(block) == {"product"})
    assert product["offers"]["price"] == 7


def structured(*names, title="Rose Serum 30ml"):
    blocks = "".join(
        f'<script type="application/ld+json">{{"@type":"Product","name":"{name}"}}</script>' for name in names
    )
    return read_structured_data(read_page(f"<h1>{title}</h1>{blocks}", URL))


@pytest.mark.parametrize(
    ("names", "own"),
    [
        (["Rose Serum"], "Rose Serum"), (["Other"], "Other"), (["Lily", "Rose Serum 30ml", "Mint"], "Rose Serum 30ml"),
        (["Lily", "Mint", "Sage"], None), (["Rose", "Lily", "Mint"], None), ([], None),
    ],
)  # fmt: skip
def test_the_product_whose_name_is_the_heading_is_the_pages_own(names, own):
    found = structured(*names)
    assert [one.block["name"] for one in found.products] == ([own] if own else [])
    assert found.is_list == (own is None and bool(names))


def test_parts_of_one_product_are_put_together():
    parts = (
        '[{"@type":"Product","name":"Rose","offers":{"price":7}},{"@type":"Product","name":"Rose","brand":"Acme"},'
        '{"@type":"Product","aggregateRating":{"ratingValue":4}}]'
    )
    page = read_page(f"<h1>Rose</h1><script type='application/ld+json'>{parts}</script>", URL)
    (own,) = read_structured_data(page).products
    assert {"offers", "brand", "aggregateRating"} <= own.block.keys()
