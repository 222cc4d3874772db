"""Predictors of products leave uncertain fields null, keep the confidences, and give a row for an unusable image."""

import json
import math
from types import SimpleNamespace

import numpy as np
import pytest

from skincare.dataset import hints
from skincare.errors import StageError
from skincare.evaluation import field_policy, fusion, product_fusion
from skincare.evaluation.field_policy import Calibrator, FieldPolicy
from skincare.evaluation.product_fusion import FieldFusion
from skincare.inference import image_predictor, run_confidence
from skincare.inference.decoder_output import DecoderOutput
from skincare.inference.fused_product_predictor import FusedProductPredictor
from skincare.inference.image_predictions import InputImage
from skincare.inference.image_predictor import PredictorSettings
from skincare.inference.model_predictor import ModelPredictor
from skincare.labels import labels_of, skincare_labels
from skincare.paths import Layout
from skincare.product.schema import FIELDS, Product
from skincare.prompts import labels_for
from skincare.text_reading import pack_products
from skincare.text_reading.pack_text import PackText, TextLine
from skincare.text_reading.product_reader import ProductReader
from skincare.text_reading.reader import Reader

BOX = ((0.0, 0.0), (1.0, 0.0), (1.0, 0.1), (0.0, 0.1))
PIXELS = np.zeros((8, 8, 3), np.uint8)
TEXT = Product(brand="<b>Noor</b>", category="Oil", size="50 ml").to_json()
LOG_PROBABILITIES = (("brand", math.log(0.9)), ("category", math.log(0.8)), ("size", math.log(0.3)), ("name", -0.01))


def classifier(source, text=TEXT):
    """A model that answers every image with a text."""
    output = SimpleNamespace(answer=DecoderOutput(text, 9, is_finished=True, field_log_probabilities=LOG_PROBABILITIES))
    return SimpleNamespace(
        source=source, labels=labels_for("product", skincare_labels()), hint_settings=hints.HintSettings(),
        network=SimpleNamespace(head=None), decoder=lambda name: name,
        outputs=lambda queries, _: [output for _ in queries],
    )  # fmt: skip


def pack(*texts):
    lines = tuple(TextLine(text, 0.9, BOX, 0.1) for text in texts)
    return PackText("", "", "", "fake", "read" if lines else "no_text", lines=lines)


def images():
    return [
        InputImage("a.jpg", PIXELS, pack=pack("NOOR", "Night Cream", "100 ml")),
        InputImage("b.jpg", PIXELS, pack=pack()),
        InputImage("c.jpg", None, "not_an_image", pack=pack()),
    ]


def test_a_model_leaves_fields_below_their_threshold_null(tmp_path):
    policy = FieldPolicy({"brand": Calibrator(1.0, -1.0)}, {"size": 0.5, "category": 0.95})
    rows = ModelPredictor(classifier(tmp_path), gives_product=True, policy=policy).predict(images())
    one = rows[0].to_json()
    assert {name: value for name, value in one["product"].items() if value} == {"brand": "<b>Noor</b>"}
    assert one["confidences"] == {"brand": pytest.approx(0.768, abs=1e-3), "category": 0.8, "size": 0.3}
    assert (one["category"], one["probability"]) == (None, 0.8)
    assert (rows[2].outcome, rows[2].reason, rows[2].to_json()["product"]) == ("failed", "not_an_image", None)
    empty = ModelPredictor(classifier(tmp_path, "no JSON"), gives_product=True).predict(images()[:1])[0].to_json()
    assert (empty["product"], empty["confidences"], empty["outcome"]) == (None, {}, "abstained")


def test_the_fusion_takes_each_field_from_the_system_that_knows_it(tmp_path):
    fitted = dict.fromkeys(FIELDS, FieldFusion(threshold=0.2))
    fitted["brand"] = FieldFusion(model=Calibrator(1.0, -9.0), threshold=0.2)
    fitted["size"] = FieldFusion(threshold=None)
    product_fusion.write(tmp_path, fitted, ocr="fake")
    reader = pack_products.PackProducts(Reader(skincare_labels()), ProductReader(("Noor",)))
    reader.save(tmp_path / fusion.READER_FOLDER)
    packs = SimpleNamespace(name="fake")
    rows = FusedProductPredictor(classifier(tmp_path), packs).predict(images())
    one = rows[0].to_json()
    assert (one["status"], one["product"]["brand"], one["product"]["size"]) == ("fused", "Noor", None)
    assert one["product"]["category"] == one["category"] == "Moisturiser"
    assert one["confidences"]["size"] > 0, "the confidence of a value that is left out is kept"
    assert (rows[1].status, rows[1].product["category"]) == ("model", "Oil")
    assert (rows[2].outcome, rows[2].product) == ("failed", {})
    strict = FusedProductPredictor(classifier(tmp_path), packs, min_confidence=1.0).predict(images())[0]
    assert not any(strict.product.values())
    assert strict.outcome == "abstained"
    (tmp_path / fusion.READER_FOLDER / "product_reader.json").write_text("[]")
    with pytest.raises(StageError, match=r"fuse\.py"):
        FusedProductPredictor(classifier(tmp_path), packs)


@pytest.mark.parametrize(("named", "label"), [("Moisturizer", "Moisturiser"), ("Lipstick", None)])
def test_a_generated_category_is_a_label_or_none(tmp_path, named, label):
    """Free text may hold any category; a value that is no label has no family and no place in a table."""
    product_fusion.write(tmp_path, dict.fromkeys(FIELDS, FieldFusion(threshold=0.0)), ocr="fake")
    reader = pack_products.PackProducts(Reader(skincare_labels()), ProductReader(()))
    reader.save(tmp_path / fusion.READER_FOLDER)
    model = classifier(tmp_path, Product(brand="Noor", category=named).to_json())
    image = images()[1]
    alone = ModelPredictor(model, gives_product=True).predict([image])[0].to_json()
    fused = FusedProductPredictor(model, SimpleNamespace(name="fake")).predict([image])[0].to_json()
    for one in (alone, fused):
        assert (one["product"]["brand"], one["product"]["category"], one["category"]) == ("Noor", label, label)
        assert ("category" in one["confidences"]) == (label is not None)
        assert (one["probability"] is not None) == (label is not None)


def test_the_thresholds_are_those_of_the_run_and_its_decoder(tmp_path):
    layout = Layout(tmp_path)
    folder = layout.finetuned_model("r")
    path = layout.finetune_log("r") / field_policy.FILE
    path.parent.mkdir(parents=True)
    wanted = [{"wanted_risk": 0.1, "threshold": 0.7}]
    fields = {name: {"slope": 2.0, "offset": 0.0, "wanted": wanted} for name in FIELDS}
    path.write_text(json.dumps({"version": 1, "fields": fields}))
    found = run_confidence.field_policy_of(layout, folder, None, None, None)
    assert (found.thresholds["size"], found.calibrators["size"].slope) == (0.7, 2.0)
    constrained = run_confidence.field_policy_of(layout, folder, "constrained", None, None)
    assert constrained == FieldPolicy()
    with pytest.raises(StageError, match="--max-error needs"):
        run_confidence.field_policy_of(layout, folder, "constrained", None, 0.1)
    assert run_confidence.field_policy_of(layout, tmp_path / "other", None, 0.4, None).thresholds["name"] == 0.4


def test_the_reader_answers_unless_a_model_of_products_is_chosen(tmp_path):
    layout = Layout(tmp_path)
    assert image_predictor.is_by_reader(PredictorSettings(target="product"), layout)
    folder = layout.finetuned_model("r")
    labels_of(layout).write(folder)
    (folder / "config.json").write_text("{}")
    assert image_predictor.is_by_reader(PredictorSettings(target="product"), layout), "a model without a fusion"
    (folder / image_predictor.PRODUCT_FUSION).write_text("{}")
    assert not image_predictor.is_by_reader(PredictorSettings(target="product"), layout)
    assert image_predictor.is_by_reader(PredictorSettings(target="product", by="reader"), layout)
    assert image_predictor.PRODUCT_FUSION == product_fusion.FILE
    with pytest.raises(StageError, match="--temperature"):
        PredictorSettings(target="product", by="model", temperature=2).check()
