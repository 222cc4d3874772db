"""A brand is the beginning that names share and then leave in many ways."""

import random

import pytest

from skincare.product.brands import begins_with, brands_of, well_known_brand_of
from skincare.tables import CATALOGUE

NAMES = {
    "Elemis Superfood Facial Oil 15ml": "Elemis",
    "Elemis Pro-Collagen Marine Oil": "Elemis",
    "Elemis Peptide4 Peel": "Elemis",
    "Molton Brown Jasmine Gel": "Molton Brown",
    "Molton Brown Orange Oil": "Molton Brown",
    "Molton Brown Suede Wash": "Molton Brown",
    "The Ordinary Niacinamide": "The Ordinary",
    "The Ordinary Buffet": "The Ordinary",
    "The INKEY List Retinol": "The INKEY List",
    "The INKEY List Peptide": "The INKEY List",
    "Dr. PAWPAW Balm": "DR PAWPAW",
    "DR PAWPAW Original": "DR PAWPAW",
    "Bloom & Blossom Lip Balm": "Bloom & Blossom",
    "Bloom and Blossom Wash": "Bloom & Blossom",
    "Lonely Brand Serum": None,
}


def test_brands_of_names():
    assert {name: brands_of(NAMES).get(name) for name in NAMES} == NAMES


def test_the_order_of_names_changes_nothing():
    names = list(NAMES)
    for seed in range(5):
        random.Random(seed).shuffle(names)
        assert brands_of(names) == {name: brand for name, brand in NAMES.items() if brand}


def test_a_word_for_the_product_or_a_size_is_no_brand():
    names = ["Bath Oil Rose", "Bath Salts Sea", "50ml Cream", "50ml Toner"]
    assert brands_of(names, category_words=["bath"]) == {}


@pytest.mark.parametrize("name", ["", " ", "®", "(-)", "a" * 10_000])
def test_odd_names_do_no_harm(name):
    assert brands_of([name, f"{name} x", "Elemis A", "Elemis B"])["Elemis A"] == "Elemis"


def test_brands_of_the_real_catalogue(real_data):
    """1,081 of 1,126 products: 142 brands, read by eye; two hold a line's name (Lumene Nordic, Salcura Antiac)."""
    rows = CATALOGUE.read(real_data / "skincare_products_clean.csv")
    names = {row.product_url: " ".join(row.product_name.split()) for row in reversed(rows)}
    brands = brands_of(names.values())
    assert len([name for name in names.values() if name in brands]) == 1081
    found = set(brands.values())
    assert {"La Roche-Posay", "Estée Lauder", "The Ordinary", "Sol de Janeiro", "Dr Dennis Gross", "yes to"} <= found
    assert not {"The", "Dr", "La", "Molton", "Rituals The Ritual"} & found


def test_the_well_known_brand_of_a_name():
    assert well_known_brand_of("NARS Cosmetics Aqua Gel") == "Nars"
    assert well_known_brand_of("The Body Shop Shea Butter") == "The Body Shop"
    assert well_known_brand_of("4U2 Skin Serum") == "4U2 Skin", "the longest one"
    assert well_known_brand_of("Fresh Orange Shower Gel") == "Fresh"
    assert well_known_brand_of("Fresh Orange Shower Gel", {"fresh"}) == ""
    assert [well_known_brand_of(name) for name in ("", "Narsilion Gel", "50ml")] == ["", "", ""]
    assert begins_with("Lumene Nordic", "Lumene")
    assert not begins_with("Lumene", "Lumene") and not begins_with("Lumene", "")
