"""Scores of structured answers count each kind of error once, and only where the truth is known."""

import dataclasses

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import precision_recall_fscore_support

from skincare.evaluation import product_metrics
from skincare.evaluation.field_similarity import document_similarity, similarity
from skincare.evaluation.product_metrics import ScoredProduct, compare, outcome, score
from skincare.product.schema import FIELDS, Product

TRUTH = Product(brand="L'Oréal Paris", category="Serum", name="Revitalift Serum 30ml", size="100 ml",
                ingredients=("aqua", "glycerin", "parfum", "niacinamide"))  # fmt: skip


def answer(image_id="1_1", product_id="1", status="valid", truth=TRUTH, absent=(), predicted="same", **changes):
    product = truth if predicted == "same" else predicted
    if product is not None and changes:
        product = product.model_copy(update=changes)
    return ScoredProduct(image_id, product_id, truth, product, status, frozenset(absent))


def field_of(scores, name):
    return next(one for one in scores.fields if one.field == name)


@pytest.mark.parametrize(
    ("name", "truth", "predicted", "least", "most"),
    [
        ("brand", "L’Oréal® Paris", "LOREAL PARIS", 1, 1),
        ("brand", "L'Oréal Paris", "L'Oréal", 0, 0),
        ("forNightOrMorning", "night", "morning and night", 0, 0),
        ("size", "100 ml", "3.4 fl oz", 1, 1),
        ("size", "100 ml", "3.3 fl oz", 0, 0),
        ("size", "2 x 50 ml", "100ml", 1, 1),
        ("size", "100 ml", "large", 0, 0),
        ("name", "Revitalift Serum", "Revitalift serum", 1, 1),
        ("name", "Revitalift Serum", "Revitalift Cream", 0.6, 0.9),
        ("name", "Revitalift Serum", "Bath Salts", 0, 0),
        ("ingredients", ("Aqua", "Parfum"), ("fragrance", "Water (Aqua)"), 1, 1),
        ("ingredients", ("aqua", "glycerin"), ("aqua", "urea"), 0.5, 0.5),
    ],
)
def test_each_field_has_a_comparison_of_its_own(name, truth, predicted, least, most):
    assert least <= similarity(name, truth, predicted) <= most


def test_every_field_can_be_compared():
    value = {"ingredients": ("aqua",), "forNightOrMorning": "night", "size": "5 ml"}
    assert all(similarity(name, value.get(name, "a"), value.get(name, "a")) == 1 for name in FIELDS)


def test_outcomes():
    assert outcome(answer(), "brand") == "correct"
    assert outcome(answer(brand="Elemis"), "brand") == "substituted"
    assert outcome(answer(brand=None), "brand") == "omitted"
    assert outcome(answer(predicted=None, status="invalid"), "brand") == "omitted"
    assert outcome(answer(origin="France"), "origin") is None
    assert outcome(answer(origin="France", absent=["origin"]), "origin") == "invented"
    assert outcome(answer(absent=["origin"]), "origin") is None


VALUES = st.sampled_from([None, "Elemis", "Noor", "Weleda"])


@given(st.lists(st.tuples(VALUES, VALUES, st.booleans()), min_size=1, max_size=30))
@settings(max_examples=60, deadline=None)
def test_every_value_has_one_outcome_and_f1_is_that_of_scikit_learn(rows):
    answers = [
        ScoredProduct(f"{i}_1", str(i), Product(brand=truth), Product(brand=predicted), "valid",
                      frozenset(["brand"] if is_absent and truth is None else []))
        for i, (truth, predicted, is_absent) in enumerate(rows)
    ]  # fmt: skip
    brand = field_of(score(answers, n_resamples=2), "brand")
    n_true = sum(truth is not None for truth, _, _ in rows)
    assert brand.correct + brand.substituted + brand.omitted == n_true == brand.n_known
    n_predicted = sum(predicted is not None for _, predicted, _ in rows)
    assert brand.correct + brand.substituted + brand.invented + brand.n_unscored == n_predicted
    scored = [one for one in rows if one[0] is not None or one[2]] or [(None, None, True)]
    truths, predictions = ([one[side] or "none" for one in scored] for side in (0, 1))
    expected = precision_recall_fscore_support(
        truths, predictions, labels=["Elemis", "Noor", "Weleda"], average="micro", zero_division=0
    )
    for found, value in zip((brand.precision, brand.recall, brand.f1), expected, strict=False):
        assert (found or 0.0) == pytest.approx(value)


def test_counts_precision_recall_and_f1():
    answers = [
        answer("1_1", "1"),
        answer("1_2", "1", brand="Elemis"),
        answer("2_1", "2", brand=None),
        answer("3_1", "3"),
        answer("4_1", "4", truth=Product(category="Oil"), brand="Elemis", absent=["brand"]),
        answer("5_1", "5", truth=Product(category="Oil"), brand="Elemis"),
    ]
    brand = field_of(score(answers), "brand")
    assert (brand.correct, brand.substituted, brand.omitted, brand.invented) == (2, 1, 1, 1)
    assert (brand.n_known, brand.n_absent, brand.n_unscored) == (4, 1, 1)
    assert (brand.precision, brand.recall) == (2 / 4, 2 / 4)
    assert brand.f1 == 4 / 8
    assert brand.f1_low < brand.f1 < brand.f1_high
    assert brand.mean_similarity == 2 / 4


def test_inventions_are_a_share_of_the_images_without_a_value():
    answers = [
        *(answer(f"{i}_1", str(i), absent=["origin"], origin="France" if i < 3 else None) for i in range(12)),
        answer("20_1", "20", origin="France"),
        answer("21_1", "21", truth=Product(origin="France"), origin="Spain"),
    ]
    origin = field_of(score(answers), "origin")
    assert (origin.invented, origin.n_absent, origin.n_known, origin.n_unscored) == (3, 12, 1, 1)
    assert origin.invention_rate == 3 / 12
    assert 0 <= origin.invention_low < 0.25 < origin.invention_high < 0.7
    assert (origin.precision, origin.substituted) == (0, 1)
    size = field_of(score(answers), "size")
    assert (size.n_absent, size.invention_rate, size.invention_low, size.invention_high) == (0, None, None, None)


def test_an_invented_value_lowers_the_document_score_and_null_does_not():
    anls_star = pytest.importorskip("anls_star")
    truth = Product(brand="Noor", size="5 ml")
    plain, invented = (answer(truth=truth, absent=["origin", "name"], origin=value) for value in (None, "France"))
    assert product_metrics.document_score(plain) == 1
    expected = anls_star.anls_score(
        {"brand": "noor", "size": "5 ml"}, {"brand": "noor", "size": "5 ml", "origin": "france"}
    )  # fmt: skip
    assert product_metrics.document_score(invented) == pytest.approx(expected) == pytest.approx(2 / 3)


def test_null_is_right_where_the_product_has_no_value():
    first = [answer(f"{i}_1", str(i), absent=["origin"], origin="France") for i in range(9)]
    second = [dataclasses.replace(one, predicted=TRUTH) for one in first]
    found = compare(first, second)
    assert (found["origin"].n_known, found["origin"].difference) == (9, 1)
    assert found["brand"].difference == 0
    unparsed = [dataclasses.replace(one, predicted=None, status="invalid") for one in first]
    assert compare(first, unparsed)["origin"].difference == 0, "no answer is not a null"
    with pytest.raises(ValueError, match="same truths"):
        compare(first, [dataclasses.replace(one, absent=frozenset()) for one in second])


def test_a_field_that_nobody_knows_has_no_scores():
    origin = field_of(score([answer(origin="France")]), "origin")
    assert (origin.precision, origin.recall, origin.f1, origin.f1_low, origin.mean_similarity) == (None,) * 5
    assert (origin.n_known, origin.n_unscored) == (0, 1)


def test_images_of_one_product_widen_the_interval():
    right = [answer(f"{i}_1", str(i)) for i in range(30)]
    wrong = [answer(f"{i}_1", str(i), brand="x") for i in range(30, 60)]
    single = field_of(score(right + wrong), "brand")
    few = [dataclasses.replace(one, product_id=str(int(one.product_id) // 10)) for one in right + wrong]
    clustered = field_of(score(few), "brand")
    assert single.f1 == clustered.f1
    assert clustered.f1_high - clustered.f1_low > 1.5 * (single.f1_high - single.f1_low)


def test_status_shares_and_the_order_of_answers():
    answers = [
        answer("1_1", "1"), answer("2_1", "2", "repaired"), answer("3_1", "3", "truncated"),
        answer("4_1", "4", "invalid", predicted=None),
    ]  # fmt: skip
    scores = score(answers)
    assert (scores.schema_valid, scores.json_valid) == (1 / 4, 2 / 4)
    assert scores.statuses == {"invalid": 1, "repaired": 1, "truncated": 1, "valid": 1}
    assert scores.document == 3 / 4
    assert score(answers[::-1]) == scores
    with pytest.raises(ValueError, match="no structured answers"):
        score([])


def test_the_document_score_is_anls_star():
    anls_star = pytest.importorskip("anls_star")
    truth = {"brand": "Weleda", "ingredients": ("aqua", "urea"), "size": "30ml"}
    predicted = {"brand": "Weleda", "ingredients": ("Urea",), "size": "30 ml"}
    expected = anls_star.anls_score(
        {"brand": "weleda", "ingredients": ["aqua", "urea"], "size": "30 ml"},
        {"brand": "weleda", "ingredients": ["urea"], "size": "30 ml"},
    )
    assert document_similarity(truth, predicted) == pytest.approx(expected)
    assert expected < 1
    whole = answer(origin="France")
    assert product_metrics.document_score(whole) == 1, "a value whose truth is not known costs nothing"


def test_two_systems_are_compared_on_the_same_images():
    first = [answer(f"{i}_1", str(i), brand="x" if i < 20 else TRUTH.brand) for i in range(40)]
    second = [answer(f"{i}_1", str(i)) for i in range(40)]
    found = compare(first, second)
    assert set(found) == {"brand", "category", "name", "size", "ingredients"}
    brand, size = found["brand"], found["size"]
    assert (brand.n_known, brand.difference) == (40, 0.5)
    assert 0.3 < brand.low < 0.5 < brand.high < 0.7
    assert brand.products_p < 0.01
    assert (size.difference, size.products_p) == (0, 1)
    assert compare(second, first)["brand"].difference == -0.5
    for other in (second[:-1], [*second, second[0]], [dataclasses.replace(one, truth=Product()) for one in second], []):
        with pytest.raises(ValueError, match="same images"):
            compare(first, other)
