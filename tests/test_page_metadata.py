"""What the shop's pages say of a product, in each of their shapes, and what they do not say."""

import json

import pytest

from skincare.collecting.metadata import Fact
from skincare.collecting.pages import parse_product_page

URL = "https://www.lookfantastic.com/p/weleda-skin-food/11111111/"


def metadata(html, url=URL):
    return parse_product_page(html, url).metadata


def json_ld(**values):
    return f'<script type="application/ld+json">{json.dumps({"@type": "Product", **values})}</script>'


VARIANT_A = """<html><body><h1 class="productName_title">Weleda Skin Food (75ml)</h1>
<p class="productPrice_price">£13.95</p><img class="athenaProductImageCarousel_image" src="/a.jpg">
<div class="productDescription_contentPropertyListItem_synopsis">
 <button id="product-description-heading-lg-2"><h3>Product Overview</h3></button>
 <div id="product-description-content-lg-2"><p>A rich <b>cream</b>.</p><p>Since 1926.</p></div></div>
<div class="productDescription_contentPropertyListItem_directions">
 <div class="productDescription_contentPropertyHeading">How to Use</div>
 <div id="product-description-content-lg-15"><p>Apply to dry areas.</p></div></div>
<div><button id="product-description-heading-7" aria-controls="product-description-content-7">Ingredients</button>
 <div id="product-description-content-7"><p>Water (Aqua), Lanolin</p></div></div>
<ul data-information-component="brand"><li>Weleda</li></ul>
<ul data-information-component="volume"><li>75ml</li></ul></body></html>"""

VARIANT_B = """<html><head>{json_ld}<meta property="og:title" content="Skin Food | LOOKFANTASTIC">
<meta property="og:description" content="From the head."></head><body>
<div id="view-item-container" data-track-push="11111111"></div>
<h1 id="product-title">Weleda Skin Food (75ml)</h1><div id="product-price">£13.95</div>
<button data-tracking-push="How to Use" aria-controls="use">+</button>
<div id="use"><h3>How to Use</h3><div class="attribute-content">Apply &amp;amp; rub in.</div></div>
<button data-tracking-push="Full Ingredients List" aria-controls="inci">+</button>
<div id="inci"><div class="attribute-content"><p>Aqua, Lanolin</p></div></div>
<button data-tracking-push="Delivery" aria-controls="post">+</button><div id="post">Two days</div>
</body></html>"""


def test_variant_a_is_read_by_its_headings():
    assert metadata(VARIANT_A) == {
        "name": Fact("Weleda Skin Food (75ml)", "page"),
        "brand": Fact("Weleda", "page"),
        "price": Fact("13.95", "page"),
        "currency": Fact("GBP", "page"),
        "description": Fact("A rich cream . Since 1926.", "page"),
        "size": Fact("75ml", "page"),
        "ingredients": Fact("Water (Aqua), Lanolin", "page"),
        "how_to_use": Fact("Apply to dry areas.", "page"),
    }


def test_variant_b_is_read_from_json_ld_accordions_and_head():
    block = json_ld(
        name="Weleda Skin Food (75ml)",
        brand={"@type": "Brand", "name": "Weleda"},
        offers=[{"price": "13.95", "priceCurrency": "GBP"}],
        countryOfOrigin={"@type": "Country", "name": "Germany"},
        manufacturer={"@type": "Organization", "name": "Weleda AG"},
    )
    assert metadata(VARIANT_B.replace("{json_ld}", block)) == {
        "name": Fact("Weleda Skin Food (75ml)", "json_ld"),
        "brand": Fact("Weleda", "json_ld"),
        "price": Fact("13.95", "json_ld"),
        "currency": Fact("GBP", "json_ld"),
        "description": Fact("From the head.", "open_graph"),
        "size": Fact("75ml", "name"),
        "ingredients": Fact("Aqua, Lanolin", "page"),
        "how_to_use": Fact("Apply & rub in.", "page"),
        "country": Fact("Germany", "json_ld"),
        "manufacturer": Fact("Weleda AG", "json_ld"),
    }


def test_variant_c_takes_from_the_group_and_its_chosen_variant():
    variants = [
        {"sku": "22222222", "name": "Skin Food 30ml", "size": "30ml", "offers": {"price": "8", "priceCurrency": "GBP"}},
        {"sku": "11111111", "name": "Skin Food 75ml", "size": {"value": 75, "unitText": "ml"},
         "offers": [{"price": 13.95, "priceCurrency": "GBP"}]},
    ]  # fmt: skip
    block = json_ld(**{"@type": "ProductGroup", "name": "Weleda Skin", "brand": "Weleda", "hasVariant": variants})
    found = metadata(f"{block}<h1 id='product-title'>Weleda Skin - Food and More</h1>")
    assert found == {
        "name": Fact("Weleda Skin - Food and More", "page"),
        "brand": Fact("Weleda", "json_ld"),
        "price": Fact("13.95", "json_ld"),
        "currency": Fact("GBP", "json_ld"),
        "size": Fact("75 ml", "json_ld"),
    }


@pytest.mark.parametrize(
    ("offers", "price"),
    [
        ({"price": "5"}, "5.00"),
        ([{"price": "bad"}, {"price": "6"}], "6.00"),
        ([{"price": "6", "sku": "1"}, {"price": "7", "sku": "11111111"}], "7.00"),
        ({"@type": "AggregateOffer", "lowPrice": "8", "highPrice": "9"}, "8.00"),
        ({"priceSpecification": [{"price": 9, "priceCurrency": "GBP"}]}, "9.00"),
        ([], None), (None, None), ("12.00", None), ([[{"price": 1}]], None), ({"price": {"x": 1}}, None),
    ],
)  # fmt: skip
def test_offers_come_in_many_shapes(offers, price):
    found = metadata(json_ld(name="A", offers=offers))
    assert (found["price"].value if "price" in found else None) == price


def test_what_nobody_states_is_absent():
    assert metadata("<h1 id='product-title'></h1>") == {}
    assert metadata(json_ld(name=None, brand=[], size={}, offers={})) == {}


@pytest.mark.parametrize("name", ["Skin Food", "Skin Food Light", "Skin"])
def test_only_a_name_cut_at_a_hyphen_is_mended(name):
    found = metadata(json_ld(name=name) + "<h1 id='product-title'>Skin Food - Original</h1>")
    assert found["name"].value == ("Skin Food - Original" if name == "Skin Food" else name)


def test_real_json_ld_of_a_sister_shop_is_read(real_data):
    blocks = json.loads((real_data / "cultbeauty_jsonld_products.json").read_text(encoding="utf-8"))
    found = [metadata(json_ld(**block), f"https://www.cultbeauty.co.uk/a/{block['sku']}.html") for block in blocks]
    assert [one["brand"].value for one in found] == ["Paula's Choice", "Charlotte Tilbury"]
    assert [(one["price"].value, one["currency"].value) for one in found] == [("35.00", "GBP"), ("30.00", "GBP")]
    assert found[0]["size"] == Fact("118ml", "name")
    assert "size" not in found[1]
