"""The table of products' facts holds every product once, says where each value is from, and adds up."""

import json

import pytest

import product_facts
from skincare.errors import MissingInputError, StageError
from skincare.paths import Layout
from skincare.product import store
from skincare.product.facts import product_facts as facts_of
from skincare.product.store import KnownProduct
from skincare.tables import METADATA, MetadataRow
from tests.dataset_helpers import write_catalogue

CATEGORIES = {"10000001": "Serum", "10000002": "Serum", "10000003": "Oil"}
NAMES = {"10000001": "Noor Night Serum 30ml", "10000002": "Noor Day Cream 50ml", "10000003": "Lone Oil"}


@pytest.fixture
def layout(tmp_path):
    found = Layout(tmp_path)
    write_catalogue(found, CATEGORIES, NAMES)
    return found


def run(layout):
    return product_facts.run(product_facts.Config(root=layout.root), layout)


def test_the_catalogue_alone_gives_a_line_per_product(layout):
    summary = run(layout)
    found = store.read_products(layout.product_facts)
    assert list(found) == sorted(CATEGORIES)
    assert found["10000001"].product.model_dump(exclude_none=True) == {
        "brand": "Noor", "category": "Serum", "name": "Noor Night Serum 30ml", "size": "30 ml",
        "forNightOrMorning": "night",
    }  # fmt: skip
    assert summary.counts == {"products": 3, "rejected rows": 0}
    coverage = summary.results["coverage"]
    assert (coverage["brand"], coverage["size"], coverage["origin"]) == ({"name_prefix": 2}, {"name": 2}, {})
    assert summary.results["coverage_by_category"]["Serum"]["size"] == 2
    assert layout.plot("product_coverage").is_file()


def test_what_the_pages_state_comes_in(layout):
    row = MetadataRow("u", "10000003", "Oil", "Lone Oil 10ml", "Lone", "", "", "", "", "", "", "FR", "",
                      "name=json_ld brand=json_ld country=microdata", "web_page", "")  # fmt: skip
    METADATA.write(layout.metadata_table, [row])
    run(layout)
    found = store.read_products(layout.product_facts)["10000003"]
    assert (found.product.brand, found.product.country, found.product.size) == ("Lone", "FR", "10 ml")
    assert found.sources == {
        "brand": "json_ld", "category": "catalogue", "country": "microdata", "name": "json_ld", "size": "name",
    }  # fmt: skip


def test_the_same_input_gives_the_same_bytes(layout):
    run(layout)
    first = layout.product_facts.read_bytes(), layout.plot("product_coverage").read_bytes()
    run(layout)
    assert (layout.product_facts.read_bytes(), layout.plot("product_coverage").read_bytes()) == first


def test_an_absent_catalogue_is_named(tmp_path):
    with pytest.raises(MissingInputError, match="catalogue"):
        run(Layout(tmp_path))


def test_what_is_written_is_read_back_and_a_damaged_file_is_named(tmp_path):
    path = tmp_path / "products.jsonl"
    with pytest.raises(MissingInputError, match=r"product_facts\.py"):
        store.read_products(path)
    known = [KnownProduct("2", facts_of("Oil")), KnownProduct("1", facts_of("Serum"))]
    store.write_products(path, known)
    assert store.read_products(path) == {"1": known[1].facts, "2": known[0].facts}
    good = json.loads(path.read_text().splitlines()[0])
    for bad in ("{", "[]", "{}", json.dumps(good | {"sources": {}}), json.dumps(good | {"product": {"price": 3}}),
                json.dumps(good) + "\n" + json.dumps(good), "[" * 10_000):  # fmt: skip
        path.write_text(bad)
        with pytest.raises(StageError, match=r"products\.jsonl, line [12]:(.|\n)*product_facts\.py"):
            store.read_products(path)
