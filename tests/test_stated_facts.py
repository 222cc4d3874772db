"""A user's table states values and absent fields of products; statements precede all other sources."""

import pytest

import product_facts
from skincare.errors import StageError
from skincare.paths import Layout
from skincare.product import store
from skincare.product.facts import Statement
from skincare.product.facts import product_facts as facts_of
from skincare.product.majority import majority_product
from skincare.product.stated_facts import STATED_FIELDS, read_stated_facts
from skincare.tables import CatalogueRow
from tests.dataset_helpers import write_catalogue

HEADER = "product_id,field,value,source\n"


def write(path, *rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(HEADER + "".join(f"{row}\n" for row in rows), encoding="utf-8")
    return path


def test_rows_are_values_or_absent_fields(tmp_path):
    path = tmp_path / "stated_facts.csv"
    assert read_stated_facts(path) == {}
    write(
        path, "7,size,50ml,pack", "7,origin,-,pack", '8,ingredients,"Aqua, Urea",label  of 2024', "8,brand, Noor ,pack"
    )
    assert read_stated_facts(path) == {
        "7": [("size", "50 ml", "pack"), ("origin", None, "pack")],
        "8": [("ingredients", ("Aqua", "Urea"), "label of 2024"), ("brand", "Noor", "pack")],
    }


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("7,price,9,pack", "the fields are brand"),
        ("7,category,Oil,pack", "the fields are brand"),
        ("7,size,,pack", "has no row"),
        ("7,size,large,pack", "'large' is no size"),
        ("7,size,50 ml,", "the source is empty"),
        ("7,forNightOrMorning,noon,pack", "'noon'"),
        (f"7,brand,{'x' * 3000},pack", "2000"),
        ("7,origin,-,pack\n7,origin,France,box", "stated twice"),
    ],
)
def test_invalid_rows_are_named(tmp_path, row, message):
    with pytest.raises(StageError, match=rf"product '7', field '\w+'(.|\n)*{message}"):
        read_stated_facts(write(tmp_path / "stated_facts.csv", row))


def test_statements_precede_all_other_sources():
    row = CatalogueRow("Noor Night Oil 50ml", "u", "Oil", "['aqua']", "")
    stated = [
        Statement("size", "75 ml", "pack"),
        Statement("forNightOrMorning", None, "box"),
        Statement("brand", None, "x"),
    ]
    found = facts_of("Oil", row, None, "Noor", "", stated)
    assert (found.product.size, found.sources["size"]) == ("75 ml", "pack")
    assert (found.product.forNightOrMorning, found.product.brand) == (None, None)
    assert found.absent == {"forNightOrMorning": "box", "brand": "x"}
    assert set(found.sources) == {"category", "name", "ingredients", "size"}


def test_every_field_but_the_category_can_be_absent():
    row = CatalogueRow("Noor Night Oil 50ml", "u", "Oil", "['aqua']", "")
    found = facts_of("Oil", row, None, "Noor", "", [Statement(field, None, "pack") for field in STATED_FIELDS])
    assert found.product.model_dump(exclude_none=True) == {"category": "Oil"}


def test_the_table_of_facts_keeps_absent_fields_and_old_tables_are_read(tmp_path):
    layout = Layout(tmp_path)
    write_catalogue(layout, {"1": "Oil", "2": "Oil"}, {"1": "Noor Oil 5ml", "2": "Noor Balm 9ml"})
    product_facts.run(product_facts.Config(root=tmp_path), layout)
    before = layout.product_facts.read_text()
    assert "absent" not in before
    assert store.read_absent_fields(layout.product_facts) == {"1": frozenset(), "2": frozenset()}
    write(layout.stated_facts, "2,origin,-,pack", "2,size,-,pack", "9,size,-,pack")
    results = product_facts.run(product_facts.Config(root=tmp_path), layout).results
    lines = layout.product_facts.read_text().splitlines()
    assert lines[0] == before.splitlines()[0]
    assert store.read_absent_fields(layout.product_facts)["2"] == {"origin", "size"}
    assert (results["absent"]["size"], results["absent"]["brand"]) == ({"pack": 1}, {})
    assert results["coverage"]["size"] == {"name": 1}
    assert results["stated_products_not_in_catalogue"] == ["9"]
    for absent in ('{"brand": "pack"}', '{"price": "pack"}', "3"):
        bad = lines[1].replace('{"origin": "pack", "size": "pack"}', absent)
        layout.product_facts.write_text(bad)
        with pytest.raises(StageError, match=r"products\.jsonl, line 1"):
            store.read_products(layout.product_facts)
    layout.product_facts.unlink()
    assert store.read_absent_fields(layout.product_facts) == {}


def test_the_majority_is_null_where_most_products_lack_a_field():
    def facts(size):
        return facts_of("Oil", stated=[Statement("size", size, "pack")])

    assert majority_product([facts("5 ml"), facts("5 ml"), facts(None)]).size == "5 ml"
    assert majority_product([facts("5 ml"), facts("9 ml"), facts(None), facts(None)]).size is None
    assert majority_product([facts("5 ml"), facts_of("Oil"), facts_of("Oil")]).size == "5 ml", "unknown is not absent"
