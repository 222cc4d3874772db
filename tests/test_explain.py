"""The stage explains stored predictions, draws errors first, and is repeatable."""

import dataclasses
import json
import shutil
from types import SimpleNamespace

import numpy as np
import pytest
import torch

import explain
from skincare.errors import MissingInputError
from skincare.files import write_json
from skincare.inference import predictions, saliency
from skincare.inference.classifier import Classifier
from skincare.inference.image_predictions import input_image
from skincare.inference.saliency_maps import Saliency
from skincare.labels import skincare_labels
from skincare.modeling.cached_vlm import CachedVLM
from skincare.paths import TINY_MODEL, Layout
from skincare.runs.artifacts import artifacts_of
from skincare.sample import boxes, rendering
from skincare.sample.products import sample_products
from skincare.serving import predictor
from tests.dataset_helpers import jpeg, pack
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
    assert len(list(layout.overlay("").parent.glob("*.jpg"))) == 2 * 4
    answers = {
        one.image_id: one
        for one in predictions.read_jsonl(layout.finetune_log("sample") / "test_ranked.jsonl", skincare_labels())
    }
    for one in first.results["images"]:
        assert layout.overlay(one["image_id"]).is_file()
        assert layout.attention_panels(one["image_id"]).is_file()
        assert one["rival"] == answers[one["image_id"]].category != one["truth"]
    overlap = first.results["overlap"]
    attention = {"early", "middle", "late", "rollout"}
    assert set(overlap) == {"gradient", "lens", "shuffled", "area", *attention}
    assert all(row["n"] == 6 and row["inside_low"] <= row["inside"] <= row["inside_high"] for row in overlap.values())
    assert set(first.results["attention"]["agreement"]) == {"lens", *attention}
    assert set(first.results["attention"]["image_share"]) == attention - {"rollout"}
    assert all(0 < row["share"] < 1 for row in first.results["attention"]["image_share"].values())
    json.dumps(first.results, allow_nan=False)


def rewritten(layout, change):
    """Replace the run's predictions by changed ones, in a file of the given name; return them."""
    path = layout.finetune_log("sample") / "test_ranked.jsonl"
    found = [change(i, one) for i, one in enumerate(predictions.read_jsonl(path, skincare_labels())[:3])]
    path.unlink()
    return found


def test_structured_answers_are_explained_where_their_category_begins(layout):
    def structured(i, one):
        category = {0: one.truth, 1: "Serum" if one.truth != "Serum" else "Mask"}.get(i)
        text = json.dumps({"brand": "Halden", "category": category, "size": None}) if category else "a mask"
        scores = {"category": -0.5}
        return dataclasses.replace(
            one, target="product", text=text, category=category, log_probabilities=(), field_log_probabilities=scores
        )

    found = rewritten(layout, structured)
    path = layout.finetune_log("sample") / "test_predictions.jsonl"
    predictions.write_jsonl(path, found)
    config = explain.Config(root=layout.root)
    summary = explain.run(config, layout)
    assert path in artifacts_of("explain", layout, config, summary.results).inputs
    assert summary.counts == {"images": 2, "overlays": 2, "without_category_in_answer": 1}
    rows = {one["image_id"]: one for one in summary.results["images"]}
    right, wrong = (rows[one.image_id] for one in found[:2])
    assert summary.results["images"][0] == wrong
    assert wrong["rival"] == found[1].category
    assert right["rival"] in set(CATEGORIES) - {right["truth"]}


def test_answers_of_a_classification_head_are_explained_by_its_scores(layout):
    from skincare.modeling.heads import ClassificationHead, save_head

    head = ClassificationHead(128, 14)
    head.linear.bias.data = -torch.arange(14.0)
    save_head(layout.finetuned_model("sample"), head, skincare_labels())
    found = rewritten(layout, lambda _, one: dataclasses.replace(one, decoder="head"))
    predictions.write_jsonl(layout.finetune_log("sample") / "test_ranked.jsonl", found)
    for row in explain.run(explain.Config(root=layout.root), layout).results["images"]:
        # Without weights, the scores are the biases.
        assert row["contrast"] == CATEGORIES.index(row["rival"]) - CATEGORIES.index(row["truth"])


def test_the_service_draws_the_overlay_of_a_classification_head(tiny_model, tiny_encoder, tmp_path, monkeypatch):
    network = CachedVLM(tiny_model.requires_grad_(False))
    classifier = Classifier(network, tiny_encoder, tmp_path)
    image, calls = input_image("a.jpg", jpeg(pack(1, 120))), []
    explained = saliency.explain
    monkeypatch.setattr(
        saliency, "explain", lambda *_, by_head: calls.append(by_head) or explained(*_, by_head=by_head)
    )
    row = SimpleNamespace(top=[SimpleNamespace(label=name) for name in ("Mask", "Oil")])
    without_head = predictor._overlay(classifier, image, row)
    network.add_head(14)["classification_head.linear.weight"].data.normal_()
    with_head = predictor._overlay(classifier, image, row)
    assert calls == [False, True]
    assert with_head["rival"] == without_head["rival"] == "Oil"
    assert with_head["overlay"] != without_head["overlay"]


def test_missing_ranking_error_names_the_command(layout):
    rewritten(layout, lambda _, one: one)
    with pytest.raises(MissingInputError, match=r"finetune\.py"):
        explain.run(explain.Config(root=layout.root), layout)


def test_maps_are_compared_over_images_drawn_from_all():
    found = [prediction(f"{i}_1", "Balm", "Balm") for i in range(30)]
    shown, measured = explain._choose(found, explain.Config(n_images=4, n_measured=10))
    assert [one.image_id for one in shown] == [f"{i}_1" for i in range(4)]
    assert len(measured) == 10
    assert {one.image_id for one in measured} != {f"{i}_1" for i in range(10)}
    assert explain._choose(found, explain.Config(n_measured=0))[1] == []


def test_boxes_are_not_those_of_product_crops(layout):
    one = predictions.read_jsonl(layout.finetune_log("sample") / "test_ranked.jsonl", skincare_labels())[0]
    maps = {name: np.ones((2, 2)) for name in ("gradient", "lens", "early", "middle", "late", "rollout")}
    found = Saliency(1.0, {"gradient": maps["gradient"], "lens": maps["lens"]}, {"late": maps["late"]})
    cropped = dataclasses.replace(one, file=f"{layout.relative(layout.cropped_images)}/a_{one.image_id}.jpg")
    assert explain._inside_boxes(layout, [explain.Explained(one, "Balm", found)], seed=0)
    assert explain._inside_boxes(layout, [explain.Explained(cropped, "Balm", found)], seed=0) == {}


def test_attention_is_compared_with_the_magnitude_of_the_saliency(layout):
    """Attention on what speaks against the label agrees, too."""
    rows = predictions.read_jsonl(layout.finetune_log("sample") / "test_ranked.jsonl", skincare_labels())[:2]
    against = np.array([[0.0, -5.0, 1.0, 0.0, 0.0]])
    maps = {"gradient": against, "lens": np.zeros((1, 5))}
    found = Saliency(1.0, maps, {"late": np.array([[0.0, 0.3, 0.1, 0.0, 0.0]]), "rollout": np.ones((1, 5))})
    summary = explain._attention([explain.Explained(one, "Balm", found) for one in rows], explain.Config())
    assert summary["agreement"]["late"]["iou"] == 1
    assert summary["image_share"].keys() == {"late"}
    assert summary["image_share"]["late"]["share"] == pytest.approx(0.4)
    assert set(summary["agreement"]) == {"lens", "late", "rollout"}
    assert summary["n"] == 2


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
