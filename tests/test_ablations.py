"""Every variant predicts the same images, is scored, and is compared with ranking."""

import json

import pytest

import ablations
from skincare.errors import StageError
from skincare.inference import predictions
from skincare.inference.classifier import Classifier
from skincare.labels import skincare_labels
from skincare.paths import TINY_MODEL, Layout
from tests.dataset_helpers import write_dataset_files
from tests.helpers import prediction
from tests.structured_examples import write_structured_dataset

CATEGORIES = skincare_labels().names
SYSTEM_PROMPT = skincare_labels().system_prompt()


@pytest.fixture
def layout(tmp_path):
    found = Layout(tmp_path)
    write_dataset_files(found, {"val": 3})
    return found


def test_every_variant_is_scored_on_the_same_images(layout):
    config = ablations.Config(root=layout.root, model=str(TINY_MODEL), min_tokens=36, max_tokens=36, n_orders=1)
    results = ablations.run(config, layout).results
    ways = {row["way"]: row for row in results["ways"]}
    assert ways.keys() == {"generate", "constrained", "rank", "rank_per_token", "rank_pmi", "rank_synonyms",
                           "rank_order_1"}  # fmt: skip
    files = {path.stem: predictions.read_jsonl(path, skincare_labels()) for path in layout.ablations.glob("*.jsonl")}
    assert files.keys() == ways.keys()
    for way, predicted in files.items():
        assert len(predicted) == ways[way]["n"] == 3
        assert 0 <= ways[way]["accuracy_low"] < ways[way]["accuracy_high"] <= 1
    assert ways["rank"]["difference"] == 0
    assert len(results["agreement"]) == 3
    assert files["rank_order_1"][0].cache_key != files["rank"][0].cache_key
    assert json.loads((layout.ablations / "manifest.json").read_text())["predictions"].keys() == {
        f"{way}.jsonl" for way in ways
    }


def test_label_order_changes_only_the_list_in_the_prompt(layout):
    model = Classifier.load(TINY_MODEL, skincare_labels(), layout.root)
    order = CATEGORIES[::-1]
    other = model.with_label_order(order).encoder.prompt_text
    assert SYSTEM_PROMPT in model.encoder.prompt_text
    assert (
        other == model.encoder.prompt_text.replace(", ".join(CATEGORIES), ", ".join(order)) != model.encoder.prompt_text
    )
    assert model.identity, "kept before the other orders are made"
    same, different = model.with_label_order(CATEGORIES), model.with_label_order(order)
    assert same.identity == model.identity != different.identity


def test_agreement_counts_images():
    one = [prediction("1_1", "Oil", "Oil"), prediction("2_1", "Oil", None)]
    other = [prediction("2_1", "Oil", None), prediction("1_1", "Oil", "Balm")]
    assert ablations._share_alike([one, other]) == 0.5
    assert ablations._share_alike([one, one]) == 1


def test_structured_answers_are_refused_before_a_model_is_loaded(tmp_path):
    layout = Layout(tmp_path)
    write_structured_dataset(layout, {"train": 1, "val": 1, "test": 1})
    with pytest.raises(StageError, match=r"score_products\.py"):
        ablations.run(ablations.Config(root=layout.root, model="none/such"), layout)
