"""drift.py raises an alarm for what changed, and none for chance or for differences that are too small to matter."""

import json

import numpy as np
import pytest
from PIL import Image

import drift as stage
from skincare.errors import MissingInputError
from skincare.evaluation import drift, drift_inputs
from skincare.evaluation.drift import Batch
from skincare.files import write_json
from skincare.inference import run_confidence
from skincare.inference.predictions import write_jsonl
from skincare.labels import skincare_labels
from skincare.paths import Layout
from skincare.product.schema import FIELDS
from skincare.prompts import labels_for
from tests.helpers import prediction

NAMES = np.array(skincare_labels().names)


def batch(n, seed, *, abstained=0.1, unreadable=0.0, shift=0.0, mix=0.0, weight=1.0):
    rng = np.random.default_rng(seed)
    shares = np.full(len(NAMES), (1 - mix) / len(NAMES))
    shares[0] += mix
    return Batch(
        n=n, n_abstained=int(rng.binomial(n, abstained)), n_unreadable=int(rng.binomial(n, unreadable)),
        labels=list(rng.choice(NAMES, n, p=shares)), confidence=rng.beta(5, 2, n) - shift,
        metrics={"sharpness": rng.normal(size=n) + 3 * shift}, weight=weight,
    )  # fmt: skip


def drifted(*batches):
    return [one.name for one in drift.compare(*batches) if one.has_drifted]


def test_equal_batches_rarely_drift():
    alarms = sum(bool(drifted(batch(200, 2 * seed), batch(300, 2 * seed + 1))) for seed in range(200))
    assert alarms <= 4, "one in a hundred, and only with a large effect"


@pytest.mark.parametrize(
    ("change", "names"),
    [
        ({"abstained": 0.3}, ["abstained"]),
        ({"unreadable": 0.2}, ["unreadable"]),
        ({"mix": 0.4}, ["categories"]),
        ({"shift": 0.4}, ["confidence", "sharpness"]),
    ],
)
def test_a_change_is_named(change, names):
    assert drifted(batch(300, 1), batch(400, 2, **change)) == names


def test_many_rows_do_not_alarm_at_small_differences():
    reference, now = batch(100_000, 1), batch(100_000, 2, abstained=0.12, mix=0.03, shift=0.01)
    items = {one.name: one for one in drift.compare(reference, now)}
    assert items["abstained"].p_corrected < 1e-6
    assert items["categories"].p_corrected < 1e-6
    assert not any(one.has_drifted for one in items.values())


def test_images_of_few_products_count_less():
    now = batch(400, 2, abstained=0.2)
    assert drifted(batch(300, 1), now) == ["abstained"]
    assert drifted(batch(300, 1, weight=0.1), now) == []


def test_p_values_are_corrected_by_holm():
    items = drift.compare(batch(300, 1), batch(300, 2))
    for rank, one in enumerate(sorted(items, key=lambda one: one.p_value)):
        assert one.p_corrected >= min(1.0, one.p_value * (len(items) - rank))


def write_rows(path, n, *, label="Oil", outcome="answered", probability=0.9, file="a{}.png"):
    rows = [
        {
            "file": file.format(i), "outcome": outcome, "category": label if i % 2 else None,
            "probability": probability - (i % 50) / 100, "top": [{"label": label if i % 3 else "Balm"}],
        }
        for i in range(n)
    ]  # fmt: skip
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return path


def run(root, predictions, **options):
    return stage.run(stage.Config(root=root, predictions=predictions, **options), Layout(root))


def test_the_stage_compares_files_and_returns_an_exit_code(tmp_path):
    before = write_rows(tmp_path / "before.jsonl", 300)
    same = run(tmp_path, write_rows(tmp_path / "same.jsonl", 200), reference=before)
    assert (same.exit_code, same.counts["drifted"]) == (0, 0)
    now = write_rows(tmp_path / "<now>.jsonl", 200, label="Mask", outcome="failed")
    found = run(tmp_path, now, reference=before)
    assert found.exit_code == 3
    assert {one["name"] for one in found.results["items"] if one["has_drifted"]} == {"unreadable", "categories"}
    json.dumps(found.results)
    page = (tmp_path / "drift.html").read_text()
    assert "Drift: unreadable, categories" in page
    assert "&lt;now&gt;.jsonl" in page


def test_image_quality_is_compared_where_images_are_at_hand(tmp_path):
    rng = np.random.default_rng(0)
    for name, side in (("a", 64), ("b", 200)):
        for i in range(60):
            pixels = rng.integers(0, 255, (side + i % 5, side, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / f"{name}{i}.png")
    before = write_rows(tmp_path / "before.jsonl", 60)
    found = run(tmp_path, write_rows(tmp_path / "now.jsonl", 60, file="b{}.png"), reference=before)
    drifts = {one["name"] for one in found.results["items"] if one["has_drifted"]}
    assert "shorter side, px" in drifts
    odd = write_rows(tmp_path / "odd.jsonl", 60, file=f"{'n' * 5000}\0{{}}")
    assert run(tmp_path, odd, reference=before).exit_code == 0, "such names are no files"
    found = run(tmp_path, tmp_path / "now.jsonl", reference=before, images=0)
    assert found.exit_code == 0


@pytest.mark.parametrize(
    "line", ["{", "[]", '{"file": "a"}',
             '{"file": 1, "outcome": "answered", "category": "Oil", "probability": 1, "top": []}',
             '{"file": "a", "outcome": "no", "category": "Oil", "probability": 1, "top": []}',
             '{"file": "a", "outcome": "failed", "category": "Oil", "probability": NaN, "top": []}'],
)  # fmt: skip
def test_a_malformed_batch_has_exit_code_2(tmp_path, line):
    before = write_rows(tmp_path / "before.jsonl", 60)
    bad = tmp_path / "bad.jsonl"
    bad.write_text(f"{before.read_text()}{line}\n")
    with pytest.raises(MissingInputError, match="line 61"):
        run(tmp_path, bad, reference=before)
    with pytest.raises(MissingInputError, match="holds 10"):
        run(tmp_path, write_rows(tmp_path / "few.jsonl", 10), reference=before)
    with pytest.raises(MissingInputError, match=r"finetune\.py"):
        run(tmp_path, before)


def test_val_of_the_run_is_the_reference(tmp_path):
    layout, n = Layout(tmp_path), len(NAMES)
    layout.finetuned_model("r").mkdir(parents=True)
    (layout.finetuned_model("r") / "config.json").write_text("{}")
    scores = np.full(n, -9.0)
    scores[list(NAMES).index("Oil")] = 0.0
    val = [
        prediction(f"{i}_{k}", "Oil", "Oil", split="val", log_probabilities=tuple(scores))
        for i in range(30)
        for k in (1, 2)
    ]
    layout.finetune_log("r").mkdir(parents=True)
    write_jsonl(layout.finetune_log("r") / "val_ranked.jsonl", val)
    (layout.finetune_log("r") / run_confidence.FILE).write_text(
        json.dumps({"temperature": 1.0, "wanted": [{"wanted_risk": 0.1, "threshold": 0.5}]})
    )
    found = run(tmp_path, write_rows(tmp_path / "now.jsonl", 60))
    assert found.results["n_reference"] == 60
    assert found.exit_code == 3
    (abstained,) = (one for one in found.results["items"] if one["name"] == "abstained")
    assert (abstained["reference"], abstained["value"]) == (0.0, 0.0)


def test_val_of_a_run_of_structured_answers_is_a_reference(tmp_path):
    layout = Layout(tmp_path)
    folder = layout.finetuned_model("r")
    labels_for("product", skincare_labels()).write(folder)
    rows = [
        prediction(f"{10 + i}_1", "Oil", "Oil" if i < 8 else None, split="val", target="product",
                   text='{"category":"Oil","size":"9 ml"}' if i < 7 else '{"category":"Oil"}' if i < 8 else "{}",
                   field_log_probabilities={"category": -0.5, "size": -0.1})
        for i in range(10)
    ]  # fmt: skip
    write_jsonl(layout.finetune_log("r") / "val_predictions.jsonl", rows)
    found = drift_inputs.read_val(layout.finetune_log("r") / "val_ranked.jsonl", folder, layout, 0)
    assert (found.n, found.n_abstained, found.labels) == (10, 2, ["Oil"] * 8)
    assert found.confidence == pytest.approx([np.exp(-0.5)] * 8)
    # As in production, a category below the run's threshold is left out, and its confidence is not.
    wanted = [{"wanted_risk": 0.1, "threshold": 0.7}]
    fields = {name: {"slope": 1.0, "offset": 0.0, "wanted": wanted} for name in FIELDS}
    write_json(layout.finetune_log("r") / "field_confidence.json", {"version": 1, "fields": fields})
    found = drift_inputs.read_val(layout.finetune_log("r") / "val_ranked.jsonl", folder, layout, 0)
    assert (found.n, found.n_abstained, found.labels, len(found.confidence)) == (10, 3, [], 8)
    write_jsonl(layout.finetune_log("r") / "val_predictions.jsonl", [])
    with pytest.raises(MissingInputError, match="structured answers on val"):
        drift_inputs.read_val(layout.finetune_log("r") / "val_ranked.jsonl", folder, layout, 0)


@pytest.mark.slow
def test_the_page_fits_phone_and_desktop(tmp_path, tab):
    before = write_rows(tmp_path / "before.jsonl", 300)
    run(tmp_path, write_rows(tmp_path / "now.jsonl", 200, label="Mask"), reference=before)
    for width in (1280, 390):
        tab.set_viewport_size({"width": width, "height": 800})
        tab.goto((tmp_path / "drift.html").as_uri())
        assert tab.evaluate("document.documentElement.scrollWidth") <= width
        assert tab.locator("tbody tr").count() >= 5
    assert set(tab.trouble) <= {(tmp_path / "drift.html").as_uri()}, "nothing else is requested, no error"
