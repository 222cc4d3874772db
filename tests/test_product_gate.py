"""The gate of structured answers fails a model that is significantly worse in one metric, and rejects damaged files."""

import dataclasses
import json
from types import SimpleNamespace

import numpy as np
import pytest

from skincare.errors import MissingInputError, StageError
from skincare.evaluation import intervals, product_gate, product_metrics, release_gate
from skincare.evaluation.product_metrics import ScoredProduct
from skincare.labels import skincare_labels
from skincare.product.schema import Product
from skincare.reporting.gate import Gate
from tests.helpers import prediction

TRUTH = Product(brand="Noor", size="30 ml", category="Oil")


def answers(n_sizes, n=60, **changes):
    """Two images per product; the first `n_sizes` have the true size, the others none."""
    return [
        ScoredProduct(
            f"{i // 2}_{i % 2 + 1}", str(i // 2), TRUTH,
            Product(brand="Noor", category="Oil", size="30 ml" if i < n_sizes else None, **changes), "valid",
        )
        for i in range(n)
    ]  # fmt: skip


def baseline(found):
    return product_gate.ProductBaseline({"model": "m"}, tuple(found))


@pytest.mark.parametrize(
    ("n_sizes", "margin", "verdict"),
    [(40, 0.0, "passed"), (60, 0.0, "passed"), (38, 0.0, "inconclusive"), (5, 0.0, "failed"), (5, -0.99, "passed")],
)
def test_verdict_is_that_of_the_worst_criterion(n_sizes, margin, verdict):
    found = product_gate.judge(baseline(answers(40)), answers(n_sizes), margin)
    assert found.verdict == verdict
    assert [one.name for one in found.criteria] == [
        "document ANLS*", "valid JSON", "F1 of brand", "F1 of category", "F1 of size",
    ]  # fmt: skip
    by_name = {one.name: one for one in found.criteria}
    for part, value in ((40, by_name["F1 of size"].baseline), (n_sizes, by_name["F1 of size"].candidate)):
        scores = {one.field: one for one in product_metrics.score(answers(part)).fields}
        assert value == pytest.approx(scores["size"].f1)
    assert by_name["F1 of brand"].verdict == "passed"
    assert f"gate {verdict}" in str(found)


def criteria_of(first, second, margin=0.0):
    return {one.name: one for one in product_gate.judge(baseline(first), second, margin).criteria}


def test_the_intervals_cover_all_criteria_together(monkeypatch):
    levels, real = [], intervals.percentile_interval
    monkeypatch.setattr(intervals, "percentile_interval", lambda *args: levels.append(args[2]) or real(*args))
    criteria_of(answers(40), answers(38))
    assert levels == [pytest.approx(1 - 0.05 / 5)] * 5
    narrow, wide = (real(np.linspace(-1, 1, 999), 30, level) for level in (0.95, 0.99))
    assert wide[0] < narrow[0] < narrow[1] < wide[1]


def test_more_images_of_the_same_products_are_no_more_evidence():
    def more(found):
        return [dataclasses.replace(one, image_id=f"{one.image_id}{copy}") for one in found for copy in "abc"]

    once, thrice = (criteria_of(change(answers(40)), change(answers(37)))["F1 of size"] for change in (list, more))
    assert (thrice.difference_low, thrice.difference_high) == pytest.approx((once.difference_low, once.difference_high))
    assert (once.n, thrice.n) == (60, 180)
    assert once.difference < 0


def test_values_for_products_that_have_none_lower_the_f1():
    without = Product(brand="Noor", category="Oil")
    first = [
        dataclasses.replace(one, truth=without, absent=frozenset(["size"])) if i >= 40 else one
        for i, one in enumerate(answers(40))
    ]
    inventing = [dataclasses.replace(one, predicted=TRUTH) for one in first]
    found = criteria_of(first, inventing)["F1 of size"]
    assert (found.baseline, found.candidate, found.verdict) == (1.0, 0.8, "failed")
    # Wrong and omitted values weigh as in the scores of a system.
    mixed = [
        dataclasses.replace(one, predicted=Product(size=("9 ml", None, "30 ml")[i % 3])) for i, one in enumerate(first)
    ]
    expected = next(one.f1 for one in product_metrics.score(mixed, n_resamples=2).fields if one.field == "size")
    assert criteria_of(first, mixed)["F1 of size"].candidate == pytest.approx(expected)


def test_a_field_of_one_product_decides_nothing():
    rare = [dataclasses.replace(one, truth=TRUTH.model_copy(update={"origin": "France"})) if i < 2 else one
            for i, one in enumerate(answers(40))]  # fmt: skip
    found = criteria_of(rare, rare)["F1 of origin"]
    assert (found.difference_low, found.difference_high, found.verdict) == (-1, 1, "inconclusive")


def test_repaired_answers_are_json():
    repaired = [dataclasses.replace(one, status="repaired") for one in answers(40)]
    assert criteria_of(answers(40), repaired)["valid JSON"].candidate == 1


def test_answers_that_are_no_json_fail():
    broken = [dataclasses.replace(one, predicted=None, status="invalid") for one in answers(40)]
    words = {one.name: one.verdict for one in product_gate.judge(baseline(answers(40)), broken, 0.0).criteria}
    assert set(words.values()) == {"failed"}
    with pytest.raises(StageError, match="gate-margin"):
        product_gate.judge(baseline(broken), broken, float("nan"))


def test_a_baseline_round_trips_and_other_images_are_refused(tmp_path):
    path, found = tmp_path / "baseline.json", answers(40, details="a\u2028b")
    product_gate.write_baseline(path, found[::-1], {"model": "m", "run": "r", "system": "finetuned"})
    read = product_gate.read_baseline(path)
    assert read.source == {"model": "m", "run": "r", "system": "finetuned"}
    assert sorted(read.answers, key=lambda one: one.image_id) == sorted(found, key=lambda one: one.image_id)
    other = [dataclasses.replace(one, truth=Product(brand="Other")) for one in found]
    for candidate in (found[1:], other, []):
        with pytest.raises(StageError, match="other images or other truths"):
            product_gate.judge(read, candidate, 0.0)
    with pytest.raises(release_gate.GateBaselineError, match="not an object with kind"):
        release_gate.read_baseline(path, skincare_labels())
    good = json.loads(path.read_text())
    one = good["answers"][0]
    for bad in (
        [one, one], [], [{}], [one | {"status": "fine"}], [one | {"truth": None}], [one | {"truth": {"x": 1}}],
        [one | {"product": {"size": 5}}], [one | {"image_id": 5}], [one | {"extra": 1}], ["text"],
    ):  # fmt: skip
        path.write_text(json.dumps(good | {"answers": bad}))
        with pytest.raises(release_gate.GateBaselineError, match="is no gate baseline"):
            product_gate.read_baseline(path)
    with pytest.raises(MissingInputError, match="gate baseline"):
        product_gate.read_baseline(tmp_path / "none.json")


def test_absent_fields_are_part_of_the_truth(tmp_path):
    path, plain = tmp_path / "baseline.json", answers(40)
    product_gate.write_baseline(path, plain, {"model": "m"})
    assert '"absent"' not in path.read_text()
    lacking = [dataclasses.replace(one, absent=frozenset(["origin"])) for one in plain]
    with pytest.raises(StageError, match="other truths"):
        product_gate.judge(product_gate.read_baseline(path), lacking, 0.0)
    product_gate.write_baseline(path, lacking, {"model": "m"})
    read = product_gate.read_baseline(path)
    assert {one.absent for one in read.answers} == {frozenset(["origin"])}
    inventing = [
        dataclasses.replace(one, predicted=one.predicted.model_copy(update={"origin": "x"})) for one in lacking
    ]
    verdicts = {one.name: one.verdict for one in product_gate.judge(read, inventing, 0.0).criteria}
    assert verdicts["document ANLS*"] == "failed"
    assert "F1 of origin" not in verdicts
    good = json.loads(path.read_text())
    for bad in ("origin", ["brand"], ["price"], [3]):
        path.write_text(json.dumps(good | {"answers": [good["answers"][0] | {"absent": bad}]}))
        with pytest.raises(release_gate.GateBaselineError, match="absent fields"):
            product_gate.read_baseline(path)


def test_the_report_compares_the_models_answers(tmp_path):
    path = tmp_path / "baseline.json"
    lines = [
        {"image_id": one.image_id, "status": one.status, "product": one.predicted.model_dump(mode="json"),
         "truth": one.truth.model_dump(mode="json")}
        for one in answers(40)
    ]  # fmt: skip
    stage_json = {"results": {"model": "m", "run": "r"}, "git_commit": "c"}
    data = SimpleNamespace(target="product", after=object(), stages={"finetune": stage_json}, labels=skincare_labels(),
                           product_answers={"finetuned": lines}, images=[])  # fmt: skip
    assert Gate(data, None, 0.0, path).check() is None
    assert Gate(data, path, 0.0, None).check().verdict == "passed"
    data.product_answers = {"finetuned": [{**one, "product": None, "status": "empty"} for one in lines]}
    before = path.read_bytes()
    assert Gate(data, path, 0.0, path).check().verdict == "failed"
    assert path.read_bytes() == before, "a failed gate replaces no baseline"
    data.product_answers = {}
    with pytest.raises(MissingInputError, match=r"score_products\.py"):
        Gate(data, path, 0.0, None)
    data.target, data.images = "category", [SimpleNamespace(last=prediction("1_1", "Oil", "Oil"))]
    with pytest.raises(release_gate.GateBaselineError, match="kind"):
        Gate(data, path, 0.0, None)
