"""The category of a structured answer is replaced, and the text before it is kept as it is."""

import pytest

from skincare.inference.category_value import with_category

CASES = [
    ('{"brand":null,"category":"Balm","size":null}', '{"brand":null,"category":"Mask",'),
    ('{"brand": "A \\"b\\"", "category": null}', '{"brand": "A \\"b\\"", "category": "Mask"}'),
    ('```json\n{"category":  "Balm"', '```json\n{"category":  "Mask"'),
    ('{"category": ["Balm"], "x": 1}', '{"category": "Mask",'),
    ('{"brand": "category", "category": "Balm"}', '{"brand": "category", "category": "Mask"}'),
]


@pytest.mark.parametrize(("text", "expected"), CASES)
def test_the_answer_is_kept_up_to_its_category(text, expected):
    assert with_category(text, "Mask") == expected


def test_a_label_is_written_as_answers_write_it():
    assert with_category('{"category":"Balm"}', 'Кре"м') == '{"category":"Кре\\"м"}'


@pytest.mark.parametrize("text", ["", "Mask", '{"brand":null}', '{"brand":null,"category":"Ba', "{'category': 'Balm'}"])
def test_an_answer_without_a_category_has_none(text):
    assert with_category(text, "Mask") is None
