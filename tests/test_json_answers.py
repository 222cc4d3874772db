"""Whatever a model writes, what can be used of it is kept and the status says how it was read."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from skincare.product.json_answers import parse_product
from skincare.product.schema import FIELDS, Product, json_schema

WHOLE = Product(brand="L'Oréal", category="Serum", ingredients=("aqua", "parfum"), size="30 ml")


def test_the_answer_of_a_product_is_read_back():
    assert tuple(json.loads(WHOLE.to_json())) == FIELDS
    found = parse_product(WHOLE.to_json())
    assert (found.product, found.status, found.errors) == (WHOLE, "valid", {})


@pytest.mark.parametrize(
    ("text", "status", "values"),
    [
        ('```json\n{"brand": "A",}\n```', "repaired", {"brand": "A"}),
        ("{'brand': 'A', 'size': None}", "repaired", {"brand": "A"}),
        ('Sure! {"brand":"A"} I hope it helps', "repaired", {"brand": "A"}),
        ('{"brand":"A"}{"brand":"B"}', "repaired", {"brand": "A"}),
        ('{"brand":"A" "name":"B"}', "repaired", {"brand": "A", "name": "B"}),
        ('{"brand":5,"category":"Serum","price":3}', "repaired", {"category": "Serum"}),
        ('{"brand":"unknown","category":"Serum"}', "repaired", {"category": "Serum"}),
        ('{"ingredients":"aqua, parfum"}', "repaired", {"ingredients": ("aqua", "parfum")}),
        ('{"forNightOrMorning":"whenever","name":"B"}', "repaired", {"name": "B"}),
        ('{"brand":"A","name":"B', "truncated", {"brand": "A", "name": "B"}),
        ('{"brand":"A","ingredients":["aqua","gly', "truncated", {"brand": "A", "ingredients": ("aqua", "gly")}),
        ('{"brand":"a } in a text","name', "truncated", {"brand": "a } in a text"}),
        (WHOLE.to_json()[:-1], "truncated", WHOLE.model_dump(exclude_none=True)),
    ],
)
def test_what_can_be_read_is_kept(text, status, values):
    found = parse_product(text)
    assert (found.status, found.product.model_dump(exclude_none=True)) == (status, values)


@pytest.mark.parametrize(
    ("text", "status"),
    [("", "empty"), ("  \n", "empty"), ("A serum.", "invalid"), ("[1,2]", "invalid"), ('{"a":1}', "invalid"),
     ("null", "invalid"), ('{"a":' * 5000, "invalid"), ("{" * 100_000, "invalid")],
)  # fmt: skip
def test_nothing_usable_is_no_product(text, status):
    found = parse_product(text)
    assert (found.product, found.status) == (None, status)


def test_a_value_that_does_not_fit_is_named():
    assert set(parse_product('{"brand":5,"price":3,"name":"B"}').errors) == {"brand", "price"}


@given(st.text(max_size=200))
def test_no_text_raises(text):
    assert parse_product(text).status in ("valid", "repaired", "truncated", "invalid", "empty")
    assert parse_product("{" + text).status


@given(st.integers(0, len(WHOLE.to_json())))
def test_a_cut_answer_never_reads_as_whole(n):
    found = parse_product(WHOLE.to_json()[:n])
    assert (found.status == "valid") == (n == len(WHOLE.to_json()))


def test_the_schema_asks_for_every_field_in_order():
    schema = json_schema()
    assert tuple(schema["required"]) == tuple(schema["properties"]) == FIELDS
    assert schema["additionalProperties"] is False
