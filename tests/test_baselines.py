"""Baselines learn from training data only, predict every test image, and are deterministic."""

import json
from collections import Counter

import numpy as np
import pytest

import baselines
from skincare.dataset import chat
from skincare.errors import StageError
from skincare.evaluation import baseline_models, comparison, metrics
from skincare.inference import predictions
from skincare.labels import skincare_labels
from skincare.paths import TINY_MODEL, Layout
from tests.dataset_helpers import write_catalogue, write_dataset_files
from tests.helpers import prediction

CATEGORIES = skincare_labels().names

SIZES = {"train": 42, "val": 14, "test": 14}


def make_layout(root):
    """Write images of 70 products whose names contain the category, and a run with every test image correct."""
    found = Layout(root)
    parts = write_dataset_files(found, SIZES)
    everything = [one for part in parts.values() for one in part]
    write_catalogue(
        found,
        {one.product_id: one.category for one in everything},
        {one.product_id: f"Noor {one.category} for you {i}" for i, one in enumerate(everything)},
    )
    right = [prediction(one.image_id, one.category, one.category) for one in parts["test"]]
    predictions.write_jsonl(found.finetune_log("sample") / "test_predictions.jsonl", right)
    found.finetune_log("unfinished").mkdir()
    return found


@pytest.fixture
def layout(tmp_path):
    return make_layout(tmp_path)


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """Return a layout with all baselines, their scores and their predictions."""
    found = make_layout(tmp_path_factory.mktemp("baselines"))
    return found, *run(found)


OF_TEST = {"majority", "name", "vision_probe", "name_image"}


def run(layout):
    settings = baselines.Config(root=layout.root, model=str(TINY_MODEL), min_tokens=36, max_tokens=36)
    summary = baselines.run(settings, layout)
    return summary.results["scores"], {
        path.stem: predictions.read_jsonl(path, skincare_labels()) for path in sorted(layout.baselines.glob("*.jsonl"))
    }


def test_each_baseline_predicts_every_image_of_its_test_set(done):
    _, scores, predicted = done
    assert predicted.keys() == scores.keys() == OF_TEST | {"product_lookup", "name_folds"}
    assert {name for name, one in scores.items() if one["is_of_test"]} == OF_TEST
    for name in OF_TEST:
        assert len(predicted[name]) == scores[name]["n"] == SIZES["test"]
        assert all(len(one.log_probabilities) == 14 for one in predicted[name])
    assert scores["product_lookup"]["n"] == round(sum(SIZES.values()) * 0.2)
    assert scores["name_folds"]["n"] == scores["name_folds"]["n_products"] == sum(SIZES.values())
    for one in scores.values():
        assert one["accuracy_low"] <= one["accuracy"] <= one["accuracy_high"] + 1e-9
        assert one["f1_macro_low"] <= one["f1_macro"] <= one["f1_macro_high"] + 1e-9


def test_the_name_baseline_reads_the_category_and_the_majority_predicts_one(done):
    _, scores, predicted = done
    assert scores["name"]["accuracy"] > 0.9
    assert scores["name_folds"]["accuracy"] > 0.9
    assert len({one.category for one in predicted["majority"]}) == 1
    # The test split has one image of every category.
    assert scores["majority"]["accuracy"] == pytest.approx(1 / 14)


@pytest.mark.slow
def test_a_second_run_gives_equal_predictions(done):
    layout, *first = done
    assert [*run(layout)] == first


@pytest.mark.slow
def test_truths_of_test_images_do_not_affect_predictions(done, layout):
    """Changing the truths of test images leaves the predictions unchanged."""
    before = done[2]
    text = layout.dataset("test").read_text()
    layout.dataset("test").write_text(text.replace('"text": "Oil"', '"text": "Peel"'))
    _, after = run(layout)
    for name in OF_TEST:
        assert [one.category for one in after[name]] == [one.category for one in before[name]]
    assert Counter(one.truth for one in after["name"])["Peel"] == 2


def test_the_weight_of_the_name_is_chosen_on_val():
    """The table that predicts the truth gets more weight than a random one, in either position."""
    examples = [chat.example(f"a_{i}_1.jpg", name, skincare_labels()) for i, name in enumerate(CATEGORIES)]
    informed = np.log(np.full((14, 14), 0.01) + 0.86 * np.eye(14))
    random = np.log(np.random.default_rng(0).dirichlet(np.ones(14), size=14))
    assert baseline_models.choose_weight(informed, random, examples, skincare_labels()) > 0.5
    assert baseline_models.choose_weight(random, informed, examples, skincare_labels()) < 0.5


def test_the_lookup_predicts_the_category_of_the_products_other_images():
    parts = {
        split: [
            chat.example(f"a_{i}_{n}.jpg", CATEGORIES[i % 14], skincare_labels())
            for i in range(first, first + 30)
            for n in (1, 2, 3)
        ]
        for split, first in (("train", 0), ("val", 30), ("test", 60))
    }
    predicted = baseline_models.product_lookup(parts, 0)
    everything = {one.product_id for part in parts.values() for one in part}
    test_ids = {one.image_id for one in predicted}
    seen = {one.product_id for part in parts.values() for one in part if one.image_id not in test_ids}
    assert len(predicted) == 54
    assert len(seen) < len(everything) or all(one.category == one.truth for one in predicted)
    for one in predicted:
        assert one.category == one.truth or one.product_id not in seen


def test_a_trained_model_is_compared_with_the_baselines_on_its_images(done):
    layout, scores, predicted = done
    log = layout.finetune_log("sample")
    found = json.loads((log / "baselines.json").read_text())
    assert found.keys() == OF_TEST
    assert found["majority"]["accuracy_before"] == scores["majority"]["accuracy"]
    right = predictions.read_jsonl(log / "test_predictions.jsonl", skincare_labels())
    assert found["majority"] == metrics.to_json(comparison.compare(predicted["majority"], right))
    assert list(layout.finetune_log("unfinished").iterdir()) == []


def test_a_catalogue_too_small_for_folds_gives_no_predictions():
    assert baseline_models.name_folds([], 0, skincare_labels()) == []


def test_a_product_without_a_name_is_an_error(layout):
    write_catalogue(layout, {"20000000": "Oil"})
    with pytest.raises(StageError, match="not in the catalogue"):
        run(layout)
