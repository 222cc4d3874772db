"""A dataset of structured answers is trained, exported, resumed and scored by the same stages."""

import dataclasses
import json

import pytest

import finetune
import predict
import product_facts
import score_products
import zero_shot
from skincare import tables
from skincare.dataset import chat
from skincare.dataset.image_files import FolderImages
from skincare.errors import StageError
from skincare.inference import predictions, structured_decoder
from skincare.inference.classifier import Classifier
from skincare.inference.image_predictor import PredictorSettings, load_predictor
from skincare.labels import labels_of_model, skincare_labels
from skincare.paths import TINY_MODEL, Layout
from skincare.product.schema import FIELDS
from skincare.prompts import target_of
from skincare.training import run_identity
from skincare.training.loop import Trainer
from tests.dataset_helpers import write_catalogue
from tests.plots import replace_training_plots
from tests.structured_examples import LABELS, write_structured_dataset
from tests.test_training import assert_same_run, config

SIZES = {"train": 6, "val": 3, "test": 3}


@pytest.fixture
def layout(tmp_path, monkeypatch):
    monkeypatch.setattr(structured_decoder, "MAX_ANSWER_TOKENS", 200)
    replace_training_plots(monkeypatch)
    found = Layout(tmp_path / "root")
    parts = write_structured_dataset(found, SIZES)
    everything = [one for part in parts.values() for one in part]
    write_catalogue(found, {one.product_id: one.category for one in everything})
    product_facts.run(product_facts.Config(root=found.root), found)
    return found


@pytest.mark.slow
def test_structured_answers_go_through_the_stages(layout):
    trained = finetune.run(config(layout, max_epochs=1), layout)
    log = layout.finetune_log("r")
    _check_criterion(layout, trained)
    found = predictions.read_jsonl(log / "test_predictions.jsonl", skincare_labels())
    assert {one.target for one in found} == {"product"}
    assert not (log / "test_ranked.jsonl").exists(), "there is no ranking of labels"
    fields = json.loads((log / "field_confidence.json").read_text())["fields"]
    assert list(fields) == list(FIELDS)
    folder = layout.finetuned_model("r")
    assert target_of(labels_of_model(folder, skincare_labels())) == "product"
    assert json.loads((folder / "generation_config.json").read_text())["max_new_tokens"] == 200
    with pytest.raises(StageError, match="it got the question"):
        Classifier.load(folder, skincare_labels(), layout.root)
    assert Classifier.load(folder, LABELS, layout.root).decoder("generate").name == "generate"
    image = layout.clean_images / "pack_20000000_1.jpg"
    (layout.root / "broken.jpg").write_bytes(b"no image")
    out = layout.root / "rows.jsonl"
    images = (str(image), str(layout.root / "broken.jpg"))
    predict.run(predict.Config(root=layout.root, images=images, target="product", by="model", out=out), layout)
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert [row["outcome"] in ("answered", "abstained") for row in rows] == [True, False]
    assert [set(row["product"] or FIELDS) for row in rows] == [set(FIELDS)] * 2
    assert all(set(row["confidences"]) <= set(FIELDS) for row in rows)
    zero_shot.run(zero_shot.Config(root=layout.root, model=str(TINY_MODEL), min_tokens=36, max_tokens=36), layout)
    summary = score_products.run(score_products.Config(root=layout.root, run="r"), layout)
    assert summary.results["systems"] == ["majority", "zero_shot", "finetuned"]


def _check_criterion(layout, trained):
    """Assert that the epoch of the highest document ANLS* is selected, and that every record names it."""
    rows = tables.PRODUCT_HISTORY.read(layout.finetune_log("r") / "history.csv")
    best = max(rows, key=lambda row: (row.val_document_anls, -row.val_loss))
    found = trained.results
    assert (found["criterion"], found["best_epoch"]) == ("val_document_anls", best.epoch)
    assert found["best_document_anls"] == best.val_document_anls
    assert found["export"]["val"]["in training"]["document_anls"] == best.val_document_anls
    assert found["export"]["val"]["exported"]["document_anls"] == pytest.approx(best.val_document_anls, abs=0.2)
    assert "by the document ANLS* on val" in trained.headline


@pytest.mark.slow
def test_an_interrupted_run_of_structured_answers_ends_as_an_uninterrupted_one(layout, monkeypatch):
    finetune.run(config(layout, run="whole", max_epochs=2), layout)
    train_epoch = Trainer._train_epoch

    def interrupted(trainer, bar):
        if trainer.progress.epoch == 1:
            raise KeyboardInterrupt
        train_epoch(trainer, bar)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Trainer, "_train_epoch", interrupted)
        finetune.run(config(layout, max_epochs=2), layout)
    finetune.run(config(layout, max_epochs=2, resume=True), layout)
    assert_same_run(layout, "whole", "r")
    train = chat.read_dataset(layout, "train")
    changed = dataclasses.replace(train[0], product=train[0].product.replace('"country":null', '"country":"France"'))
    assert run_identity.fingerprint([changed], FolderImages(layout.root)) != run_identity.fingerprint(
        train[:1], FolderImages(layout.root)
    )


def test_a_model_of_categories_gives_no_products(tmp_path):
    layout = Layout(tmp_path)
    folder = layout.finetuned_model("r")
    folder.mkdir(parents=True)
    skincare_labels().write(folder)
    (folder / "config.json").write_text("{}")
    with pytest.raises(StageError, match="trained to answer with categories"):
        load_predictor(PredictorSettings(by="model", target="product"), layout)
