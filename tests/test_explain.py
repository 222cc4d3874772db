"""The stage explains stored predictions, draws errors first, and is repeatable."""

import json
import shutil

import pytest

import explain
from skincare.errors import MissingInputError
from skincare.files import write_json
from skincare.inference import predictions
from skincare.labels import skincare_labels
from skincare.paths import TINY_MODEL, Layout
from skincare.sample import boxes, rendering
from skincare.sample.products import sample_products
from tests.helpers import prediction

CATEGORIES = skincare_labels().names


@pytest.fixture
def layout(tmp_path):
    """Return a finished run of the tiny model with six images of the sample shop, the last two classified correctly."""
    found = Layout(tmp_path)
    write_json(found.shop_truth, {"seed": 0})
    write_json(found.summary("finetune"), {"results": {"run": "sample"}})
    shutil.copytree(TINY_MODEL, found.finetuned_model("sample"))
    products = {one.product_id: one for one in sample_products(0)}
    answers = []
    for i, product in enumerate(list(products.values())[:6]):
        predicted = product.category if i > 3 else CATEGORIES[(CATEGORIES.index(product.category) + 1) % 14]
        log_probabilities = tuple(-0.1 if name == predicted else -4.0 for name in CATEGORIES)
        answers.append(
            prediction(f"{product.product_id}_1", product.category, predicted, log_probabilities=log_probabilities)
        )
        path = found.root / answers[-1].file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(rendering.image_bytes(product, product.images[0], products))
    predictions.write_jsonl(found.finetune_log("sample") / "test_ranked.jsonl", answers)
    return found


@pytest.mark.slow
def test_errors_are_drawn_first_and_runs_are_repeatable(layout):
    config = explain.Config(root=layout.root, n_images=4)
    first = explain.run(config, layout)
    assert first == explain.run(config, layout)
    assert len(list(layout.overlay("").parent.glob("*.jpg"))) == 4
    answers = {
        one.image_id: one
        for one in predictions.read_jsonl(layout.finetune_log("sample") / "test_ranked.jsonl", skincare_labels())
    }
    for one in first.results["images"]:
        assert layout.overlay(one["image_id"]).is_file()
        assert one["rival"] == answers[one["image_id"]].category != one["truth"]
    overlap = first.results["overlap"]
    assert set(overlap) == {"gradient", "lens", "shuffled", "area"}
    assert all(row["n"] == 6 and row["inside_low"] <= row["inside"] <= row["inside_high"] for row in overlap.values())
    json.dumps(first.results, allow_nan=False)


def test_missing_run_error_names_the_command(tmp_path):
    with pytest.raises(MissingInputError, match=r"finetune\.py"):
        explain.run(explain.Config(root=tmp_path), Layout(tmp_path))


def test_duplicate_has_the_box_of_its_original(layout):
    duplicates = [
        (f"{product.product_id}_{one.n}", "{}_{}".format(*one.copy_of))
        for product in sample_products(0)
        for one in product.images
        if one.copy_of
    ][:5]
    assert duplicates
    found = boxes.product_boxes(layout, {image_id for pair in duplicates for image_id in pair})
    assert all(found[duplicate] == found[original] for duplicate, original in duplicates)
    assert all(0 <= left < right <= 1 and 0 <= top < bottom <= 1 for left, top, right, bottom in found.values())
