"""Confidences of fields are calibrated and fused on val; a field is null where neither system is confident."""

import dataclasses
import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression

from skincare.errors import MissingInputError, StageError
from skincare.evaluation import field_calibrators, field_policy, intervals, product_fusion
from skincare.evaluation.field_policy import Calibrator, FieldPolicy
from skincare.evaluation.product_fusion import FieldAnswer, FieldFusion
from skincare.evaluation.product_metrics import ScoredProduct
from skincare.product.schema import FIELDS, Product


def answers(n, values, confidences, truth="30 ml"):
    """(n) answers about one size; values and confidences by number, None for no value."""
    return [
        ScoredProduct(
            f"{i}_1", str(i), Product(size=truth), Product(size=values(i)), "valid",
            confidences={"size": confidences(i)} if values(i) else {},
        )
        for i in range(n)
    ]  # fmt: skip


def logistic(confidences, right):
    """scikit-learn's logistic regression, without a prior."""
    logits = np.log(confidences / (1 - confidences)).reshape(-1, 1)
    found = LogisticRegression(C=1e9, tol=1e-10).fit(logits, right)
    return float(found.coef_[0, 0]), float(found.intercept_[0])


def test_many_values_are_calibrated_as_by_logistic_regression():
    rng = np.random.default_rng(0)
    confidences = rng.uniform(0.02, 0.98, 5000)
    right = rng.uniform(size=5000) < confidences**2
    found = field_calibrators.fit(confidences, right)
    assert (found.slope, found.offset) == pytest.approx(logistic(confidences, right), abs=0.02)
    assert found(0.7) == pytest.approx(0.49, abs=0.03)


def test_few_values_stay_close_to_their_confidence():
    assert field_calibrators.fit(np.zeros(0), np.zeros(0, dtype=bool)) == Calibrator()
    one = field_calibrators.fit(np.array([0.5]), np.array([True]))
    assert 0.5 < one(0.5) < 0.6
    # A constant confidence becomes the share of correct values, drawn towards 0.5 by the prior.
    many = field_calibrators.fit(np.full(400, 0.5), np.arange(400) < 360)
    assert many(0.5) == pytest.approx(0.9, abs=0.01)


@given(st.floats(0, 1), st.floats(0, 20), st.floats(-20, 20))
@settings(max_examples=50, deadline=None)
def test_a_calibrated_confidence_is_a_probability(confidence, slope, offset):
    assert 0 <= Calibrator(slope, offset)(confidence) <= 1
    assert Calibrator()(confidence) == pytest.approx(min(max(confidence, 1e-6), 1 - 1e-6))


def test_the_threshold_has_the_highest_f1_on_val():
    confidences, right = np.array([0.9, 0.8, 0.3, 0.2]), np.array([True, True, False, True])

    def f1(level):
        kept = confidences >= level
        return 2 * right[kept].sum() / (kept.sum() + 5)

    best = field_calibrators.best_f1_threshold(confidences, right, 5)
    assert f1(best) == max(f1(level) for level in confidences)
    assert field_calibrators.best_f1_threshold(confidences, ~right & (confidences > 1), 5) is None


def test_calibrators_and_thresholds_are_those_of_val():
    """On test the confident values are wrong, which changes neither."""
    val = answers(200, lambda i: "30 ml" if i >= 20 else "9 ml", lambda i: 0.9 if i >= 20 else 0.3)
    test = [
        dataclasses.replace(one, product_id=str(i // 10))
        for i, one in enumerate(answers(100, lambda i: "9 ml" if i < 10 else "30 ml", lambda _: 0.9))
    ]
    found = field_calibrators.summarise(val, test)["fields"]["size"]
    alone = field_calibrators.summarise(val, ())["fields"]["size"]
    for key in ("slope", "offset", "n_val"):
        assert found[key] == alone[key]
    rows = list(zip(found["wanted"], alone["wanted"], strict=True))
    assert [one["threshold"] for one, _ in rows] == [other["threshold"] for _, other in rows]
    row = next(one for one, _ in rows if one["wanted_risk"] == 0.1)
    assert (row["test_coverage"], row["test_risk"]) == (1.0, 0.1)
    # Ten of 100 values are wrong, but all of one product of ten.
    assert row["test_risk_interval"][1] > 0.3 > intervals.wilson_interval(10, 100)[1]
    assert found["ece"] != pytest.approx(found["ece_before"])
    assert (alone["ece"], alone["n_test"]) == (None, 0)


def test_invented_values_are_wrong_values():
    one = ScoredProduct("1_1", "1", Product(), Product(size="9 ml"), "valid", frozenset(["size"]), {"size": 0.9})
    confidences, right = field_calibrators.values_of("size", [one])
    assert (confidences.tolist(), right.tolist()) == ([0.9], [False])


def test_an_error_rate_without_thresholds_is_refused():
    wanted = [{"wanted_risk": 0.1, "threshold": None}, {"wanted_risk": 0.2, "threshold": 0.6}]
    fields = {"size": {"slope": 1.0, "offset": 0.0, "wanted": wanted}}
    assert field_policy.policy(fields, None, 0.1, 0.1).thresholds == {"size": math.inf}
    assert field_policy.policy(fields, None, None, 0.1).thresholds == {"size": 0.6}, "the next larger rate"
    assert field_policy.policy(fields, None, None, 0.2).thresholds == {"size": 0.6}
    assert field_policy.policy(fields, None, None, 0.3).thresholds == {}
    with pytest.raises(StageError, match=r"--max-error 0\.15; there are thresholds for 0\.1, 0\.2"):
        field_policy.policy(fields, None, 0.15, 0.1)


def test_a_threshold_is_the_least_confidence_that_is_kept():
    policy = FieldPolicy(thresholds={"size": 0.5, "brand": 0.6})
    kept = policy.kept(Product(size="9 ml", brand="Noor"), {})
    assert (kept.size, kept.brand) == ("9 ml", None), "a value without a confidence has 0.5"
    alone = FieldAnswer(Product(size="9 ml"), {"size": 0.5})
    fusion = dict.fromkeys(FIELDS, FieldFusion(threshold=product_fusion.fuse_value(
        "size", FieldFusion(), alone, FieldAnswer(None)).confidence))  # fmt: skip
    assert product_fusion.fuse(fusion, alone, FieldAnswer(None)).product.size == "9 ml"


def test_the_right_system_is_followed_and_unreliable_values_are_null():
    # The model is right where it is confident, the reader elsewhere.
    model = answers(200, lambda i: "30 ml" if i % 2 else "99 ml", lambda i: 0.95 if i % 2 else 0.4)
    reader = answers(200, lambda i: "5 ml" if i % 2 else "30 ml", lambda _: 0.7)
    fitted = product_fusion.fit(model, reader)
    pairs = list(zip(model, reader, strict=True))
    fused = [
        product_fusion.fuse(
            fitted, FieldAnswer(one.predicted, one.confidences), FieldAnswer(other.predicted, other.confidences)
        ).product.size
        for one, other in pairs
    ]
    assert set(fused) == {"30 ml"}
    wrong = answers(200, lambda _: "99 ml", lambda _: 0.9)
    never = product_fusion.fit(wrong, answers(200, lambda _: None, lambda _: 0.0))
    assert never["size"].threshold is None
    assert product_fusion.fuse(never, FieldAnswer(Product(size="9 ml")), FieldAnswer(None)).product.size is None
    silent = answers(200, lambda _: None, lambda _: 0.0)
    assert product_fusion.fit(silent, silent)["size"].threshold == 0.5, "nothing is known against the field"
    invented = [
        dataclasses.replace(one, truth=Product(), absent=frozenset(["size"]))
        for one in answers(9, lambda _: "5 g", float)
    ]
    assert product_fusion.fit(invented, invented)["size"].threshold is None, "all values on val are inventions"
    with pytest.raises(ValueError, match="same images"):
        product_fusion.fit(model, reader[1:])


def test_each_system_has_its_own_calibrator():
    found = FieldFusion(model=Calibrator(1.0, 2.0), reader=Calibrator(1.0, -2.0))
    value, nothing = FieldAnswer(Product(size="5 g")), FieldAnswer(None)
    by_model, by_reader = (
        product_fusion.fuse_value("size", found, *pair) for pair in ((value, nothing), (nothing, value))
    )
    assert by_model.confidence == pytest.approx(1 - by_reader.confidence) == pytest.approx(0.88, abs=0.01)


def test_each_case_is_calibrated_by_its_own_values():
    # Where both agree both are wrong; where they differ the model is right.
    model = answers(200, lambda i: "99 ml" if i % 2 else "30 ml", lambda _: 0.8)
    reader = answers(200, lambda i: "99 ml" if i % 2 else "5 ml", lambda _: 0.7)
    fitted = product_fusion.fit(model, reader)["size"]
    assert fitted.agreed(0.5) < 0.2
    assert fitted.disagreed(0.5) > 0.8


def test_values_that_agree_are_more_probable():
    one = FieldAnswer(Product(size="100 ml"), {"size": 0.6})
    other = FieldAnswer(Product(size="3.4 fl oz"), {"size": 0.7})
    agreed = product_fusion.fuse_value("size", FieldFusion(), one, other)
    assert (agreed.value, agreed.case) == ("3.4 fl oz", "agreed")
    assert agreed.confidence == pytest.approx(1 - 0.4 * 0.3)
    differing = product_fusion.fuse_value("size", FieldFusion(), FieldAnswer(Product(size="5 g"), {"size": 0.8}), other)
    assert (differing.value, differing.case, differing.confidence) == ("5 g", "disagreed", pytest.approx(0.8))
    alone = product_fusion.fuse_value("size", FieldFusion(), FieldAnswer(None), FieldAnswer(Product(size="5 g")))
    assert (alone.case, alone.confidence) == ("alone", 0.5)
    assert product_fusion.fuse_value("size", FieldFusion(), FieldAnswer(None), FieldAnswer(Product())) is None


def test_the_fusion_is_restored_and_damaged_files_are_named(tmp_path):
    with pytest.raises(MissingInputError, match=r"fuse\.py"):
        product_fusion.read(tmp_path)
    fitted = product_fusion.fit(
        answers(40, lambda _: "30 ml", lambda i: 0.5 + i / 100), answers(40, lambda _: None, lambda _: 0)
    )
    product_fusion.write(tmp_path, fitted, ocr="fake")
    restored, notes = product_fusion.read(tmp_path)
    assert notes == {"ocr": "fake"}
    assert [restored[name].model for name in FIELDS] == [fitted[name].model for name in FIELDS]
    assert restored["size"].threshold == fitted["size"].threshold
    good = json.loads((tmp_path / product_fusion.FILE).read_text())
    broken = good["fields"] | {"size": {"threshold": "high"}}
    for bad in ("", "[]", "{}", json.dumps(good | {"version": 2}), json.dumps(good | {"fields": broken})):
        (tmp_path / product_fusion.FILE).write_text(bad)
        with pytest.raises(StageError, match=r"product_fusion\.json(.|\n)*fuse\.py"):
            product_fusion.read(tmp_path)


def test_thresholds_of_a_run_leave_fields_null(tmp_path):
    val = answers(200, lambda i: "30 ml" if i >= 20 else "9 ml", lambda i: 0.9 if i >= 20 else 0.3)
    summary = field_calibrators.summarise(val, val)
    path = tmp_path / field_policy.FILE
    path.write_text(json.dumps(summary))
    found = field_policy.read(path, None, None, 0.1)
    assert summary["fields"]["size"]["ece"] < summary["fields"]["size"]["ece_before"]
    assert found.calibrators["brand"] == Calibrator()
    product = Product(size="30 ml", brand="Noor")
    confident, unsure = ({"size": p, "brand": 0.1} for p in (0.9, 0.3))
    for raw, kept in ((confident, "30 ml"), (unsure, None)):
        calibrated = found.calibrated(product, raw)
        assert found.kept(product, calibrated).size == kept
        assert found.kept(product, calibrated).brand == "Noor", "no threshold was chosen for brands"
    assert found.calibrated(Product(), {"size": 0.9}) == {}, "the confidence of a null is not that of a value"
    strict = field_policy.read(path, None, 0.05, 0.1)
    assert strict.kept(product, found.calibrated(product, confident)).brand is None, "nothing is known of brands"
    plain = field_policy.read(path, 0.2, None, 0.1)
    assert plain.thresholds == dict.fromkeys(FIELDS, 0.2)
    assert FieldPolicy(thresholds={"size": math.inf}).kept(product, {}).size is None
    for bad in ("", "{}", "[]", json.dumps(summary | {"version": 9}), json.dumps(summary | {"fields": {}})):
        path.write_text(bad)
        with pytest.raises(StageError, match=r"field_confidence\.json(.|\n)*finetune\.py"):
            field_policy.read(path, None, None, 0.1)
