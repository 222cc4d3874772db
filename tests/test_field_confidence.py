"""The confidence of a field is that of the tokens of its value."""

import math

import pytest

from skincare.evaluation.field_calibration import MIN_VALUES, calibrate, confidences
from skincare.evaluation.product_metrics import ScoredProduct
from skincare.inference.field_confidence import checked, field_log_probabilities, token_ends, value_spans
from skincare.product.schema import FIELDS, Product


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ('{"brand":"Noor","size":null}', {"brand": 'Noor"', "size": "null"}),
        ('Sure: { "brand" : "No\\"or" ,\n"size":["a","b"]} and more', {"brand": 'No\\"or"', "size": '["a","b"]'}),
        ('{"brand":"Noor","size":"50 m', {"brand": 'Noor"'}),
        ('{"brand":"a","brand":"bc"}', {"brand": 'bc"'}),
        ('{"brand":{"size":"x"},"size":1}', {"brand": '{"size":"x"}', "size": "1"}),
        ('{"brand":"a";"size":"b"}', {"brand": 'a"'}),
        ("{'brand':'Noor'}", {}),
        ('{"brand"', {}),
        ('{"brand":', {}),
        ("no object", {}),
        ("{" * 5000, {}),
        ('{"brand":' + "[" * 100_000, {}),
    ],
)
def test_spans_hold_the_values_with_the_closing_quote(text, values):
    assert {name: text[span.start : span.end] for name, span in value_spans(text).items()} == values


def test_a_fields_value_is_the_mean_over_the_tokens_that_overlap_it():
    #       {"brand":"  No   or"   ,"size":null  }
    pieces = ['{"brand":"', "No", 'or"', ',"size":n', "ull", "}"]
    scores = [-9.0, -1.0, -3.0, -4.0, -6.0, -9.0]
    text = "".join(pieces)
    ends = token_ends(range(len(pieces)), lambda tokens: "".join(pieces[i] for i in tokens))
    assert field_log_probabilities(text, ends, scores, FIELDS) == {"brand": -2.0, "size": -5.0}
    with pytest.raises(ValueError, match="5 log-probabilities"):
        field_log_probabilities(text, ends, scores[1:], FIELDS)


def test_tokens_that_end_inside_a_letter_never_go_backwards(tiny_encoder):
    text = '{"brand":"L’Oréal 修护","size":"50 ml"}'
    tokens = tiny_encoder.answer_tokens(text)[:-1]
    ends = token_ends(tokens, tiny_encoder.decode)
    assert ends == sorted(ends)
    assert ends[-1] == len(text)
    found = field_log_probabilities(text, ends, [-float(i) for i in range(len(tokens))], ("brand", "size"))
    assert found["size"] < found["brand"] < 0
    assert token_ends([0, 1, 2], lambda tokens: ["ab\ufffd", "ab", "abcd"][len(tokens) - 1]) == [3, 3, 4]


@pytest.mark.parametrize("bad", [[], {"a": "b"}, {"a": 1}, {"a": True}, {"a": False}, {1: -1.0}, {"a": math.nan}, None])
def test_other_values_of_a_file_are_refused(bad):
    with pytest.raises(ValueError, match="field_log_probabilities"):
        checked(bad)
    assert checked({"a": -1, "b": 0.0}) == {"a": -1, "b": 0.0}


def scored(n, n_right, confidence):
    truth, other = Product(category="Peel", size="5 ml"), Product(category="Oil", size="5 ml", brand="Noor")
    return [
        ScoredProduct(str(i), str(i), truth, Product(category="Peel") if i < n_right else other, "valid",
                      confidences={"category": confidence, "brand": 1.0})
        for i in range(n)
    ]  # fmt: skip


def test_calibration_compares_confidence_and_correctness_of_known_fields():
    found = {one.field: one for one in calibrate(scored(100, 60, 0.9))}
    assert (found["category"].n, found["category"].accuracy) == (100, 0.6)
    assert found["category"].ece == pytest.approx(0.3)
    assert sum(one.n for one in found["category"].bins) == 100
    assert found["brand"].n == 0, "its truth is not known"
    assert (found["size"].n, found["size"].ece) == (0, None), "it has no confidence"


def test_an_invented_value_is_an_error_of_its_confidence():
    answers = [
        ScoredProduct(str(i), str(i), Product(category="Oil"), Product(brand="Noor"), "valid", frozenset(["brand"]),
                      {"brand": 0.9})
        for i in range(2)
    ]  # fmt: skip
    (brand,) = [one for one in calibrate(answers) if one.field == "brand"]
    assert (brand.n, brand.accuracy) == (2, 0)


def test_calibration_of_few_values_is_null():
    (few,) = [one for one in calibrate(scored(MIN_VALUES - 1, 3, 0.5)) if one.field == "category"]
    (enough,) = [one for one in calibrate(scored(MIN_VALUES, 3, 0.5)) if one.field == "category"]
    assert (few.n, few.ece, few.bins) == (MIN_VALUES - 1, None, None)
    assert enough.ece == pytest.approx(0.4)


def test_a_confidence_is_the_geometric_mean_of_the_tokens_probabilities():
    assert confidences({"size": (math.log(0.5) + math.log(0.125)) / 2}) == pytest.approx({"size": 0.25})
