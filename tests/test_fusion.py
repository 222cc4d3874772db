"""Fusion weighs model and reader by val, ignores unread packs, and is used by predict.py."""

import dataclasses
import json
import shutil
from types import SimpleNamespace

import numpy as np
import pytest

import fuse
import predict
from skincare.dataset.chat import read_dataset
from skincare.errors import MissingInputError, StageError
from skincare.evaluation import baseline_models, fusion
from skincare.evaluation.calibration import apply_temperature
from skincare.files import write_json
from skincare.inference import fused_predictor, image_predictor, predictions
from skincare.inference.classifier import Classifier
from skincare.inference.image_predictions import input_image
from skincare.inference.image_predictor import PredictorSettings, load_predictor
from skincare.labels import skincare_labels
from skincare.paths import SPLITS, TINY_MODEL, Layout
from skincare.reporting import reader_views
from skincare.text_reading import extraction, split_reader
from skincare.text_reading.pack_text import PackText, TextLine, read_pack_text, write_pack_text
from skincare.text_reading.reader import Reader
from tests.dataset_helpers import write_catalogue, write_dataset_files
from tests.helpers import prediction

CATEGORIES = skincare_labels().names

BOX = ((0.0, 0.0), (0.1, 0.0), (0.1, 0.1), (0.0, 0.1))


def tables(n=60, *, knows, seed=0):
    """(n, 14) log-probabilities in which the truth is likelier by `knows` nats, and the truths."""
    rng = np.random.default_rng(seed)
    truths = rng.integers(0, 14, n)
    logits = rng.normal(size=(n, 14))
    logits[np.arange(n), truths] += knows
    return apply_temperature(logits, 1.0), truths


def loss(table, truths):
    return -table[np.arange(len(truths)), truths].mean()


def test_informative_predictor_gets_the_weight():
    informative, truths = tables(knows=3.0)
    noise, _ = tables(knows=0.0, seed=1)
    always = np.ones(len(truths), dtype=bool)
    by_model, by_reader = fusion.fit(informative, noise, always, truths), fusion.fit(noise, informative, always, truths)
    assert by_model.model > 3 * by_model.reader
    assert by_reader.reader > 3 * by_reader.model
    assert by_model.model == pytest.approx(by_reader.reader)


def test_fusion_beats_both_and_its_weights_are_optimal():
    one, truths = tables(knows=2.0)
    noise = tables(knows=0.0, seed=2)[0]
    other = apply_temperature(one * 0 + noise, 1.0)
    other[np.arange(len(truths)), truths] += 2.0
    other = apply_temperature(other, 1.0)
    is_read = np.arange(len(truths)) % 4 > 0
    weights = fusion.fit(one, other, is_read, truths)
    fused = fusion.fuse(weights, one, other, is_read)
    assert loss(fused, truths) < min(loss(one, truths), loss(other, truths))
    assert np.allclose(np.exp(fused).sum(axis=1), 1)

    def regularised(model, reader, alone):
        found = fusion.fuse(fusion.Fusion(model, reader, alone), one, other, is_read)
        pull = (model - 0.5) ** 2 + (reader - 0.5) ** 2 + (alone - 1) ** 2
        return loss(found, truths) + 4 * pull / len(truths)

    best = regularised(*dataclasses.astuple(weights))
    rng = np.random.default_rng(0)
    for change in rng.normal(scale=0.05, size=(50, 3)):
        assert regularised(*np.maximum(np.array(dataclasses.astuple(weights)) + change, 0.05)) >= best - 1e-9


def test_unread_packs_ignore_the_reader():
    one, truths = tables(knows=2.0)
    reader, _ = tables(knows=1.0, seed=1)
    is_read = np.arange(len(truths)) % 2 == 0
    other = np.where(is_read[:, None], reader, apply_temperature(np.eye(14)[np.zeros(len(truths), dtype=int)] * 9, 1.0))
    weights = fusion.fit(one, reader, is_read, truths)
    assert fusion.fit(one, other, is_read, truths) == weights
    assert np.array_equal(fusion.fuse(weights, one, reader, is_read), fusion.fuse(weights, one, other, is_read))


def test_model_worse_than_chance_still_predicts_unread_packs():
    """Even odds would name the first category of the list."""
    wrong, truths = tables(n=200, knows=-5.0)
    is_read = np.arange(len(truths)) % 2 == 0
    weights = fusion.fit(wrong, tables(n=200, knows=3.0)[0], is_read, truths)
    fused = fusion.fuse(weights, wrong, wrong, is_read)
    assert weights.model_alone < 0.1
    assert (fused[~is_read].argmax(axis=1) == wrong[~is_read].argmax(axis=1)).all()


def test_few_images_stay_close_to_the_prior():
    informative, truths = tables(n=1, knows=9.0)
    weights = fusion.fit(informative, informative, np.array([True]), truths)
    assert abs(weights.model - 0.5) < 0.2
    assert weights.model_alone == 1
    with pytest.raises(StageError, match="Cannot fuse"):
        fusion.fit(informative[:0], informative[:0], np.zeros(0, dtype=bool), truths[:0])
    with pytest.raises(StageError, match="Cannot fuse"):
        fusion.fit(informative, informative[:0], np.array([True]), truths)


def test_weights_are_restored_and_damaged_files_are_named(tmp_path):
    with pytest.raises(MissingInputError, match=r"fuse\.py"):
        fusion.read(tmp_path)
    fusion.write(tmp_path, fusion.Fusion(0.7, 0.4, 1.2), decoder="rank")
    assert fusion.read(tmp_path) == (fusion.Fusion(0.7, 0.4, 1.2), {"decoder": "rank"})
    good = json.loads((tmp_path / fusion.FILE).read_text())
    for bad in ("", "[]", "{}", json.dumps(good | {"model": -1}), json.dumps(good | {"version": 2}),
                json.dumps(good | {"reader": float("nan")})):  # fmt: skip
        (tmp_path / fusion.FILE).write_text(bad)
        with pytest.raises(StageError, match=r"fusion\.json(.|\n)*fuse\.py"):
            fusion.read(tmp_path)


# -- the stage

SIZES = {"train": 28, "val": 14, "test": 14}


def pack_text(image_id, *texts):
    lines = tuple(TextLine(text, 1.0, BOX, 0.1) for text in texts)
    return PackText(image_id, "f.jpg", "0" * 64, "fake", "read" if lines else "no_text", lines=lines)


@pytest.fixture
def layout(tmp_path):
    """A finished run that is right about half the images, packs that say their category but for three of test."""
    found = Layout(tmp_path / "root")
    parts = write_dataset_files(found, SIZES)
    everything = [one for part in parts.values() for one in part]
    write_catalogue(
        found,
        {one.product_id: one.category for one in everything},
        {one.product_id: f"Noor{i} {one.category}" for i, one in enumerate(everything)},
    )
    silent = {one.image_id for one in parts["test"][:3]}
    write_pack_text(
        found.pack_text,
        [pack_text(one.image_id, *(() if one.image_id in silent else ("NOOR", one.category))) for one in everything],
    )
    log = found.finetune_log("r")
    for split in ("val", "test"):
        ranked = []
        for i, one in enumerate(parts[split]):
            predicted = one.category if i % 2 else CATEGORIES[(CATEGORIES.index(one.category) + 1) % 14]
            chances = tuple(-0.5 if name == predicted else -3.5 for name in CATEGORIES)
            ranked.append(prediction(one.image_id, one.category, predicted, log_probabilities=chances, decoder="rank"))
        predictions.write_jsonl(log / f"{split}_ranked.jsonl", ranked)
        predictions.write_jsonl(log / f"{split}_predictions.jsonl", ranked)
    write_json(found.summary("finetune"), {"results": {"run": "r"}})
    shutil.copytree(TINY_MODEL, found.finetuned_model("r"))
    return found


def test_fusion_corrects_the_model_on_packs_with_text(layout):
    summary = fuse.run(fuse.Config(root=layout.root), layout)
    found = json.loads((layout.finetune_log("r") / "fusion.json").read_text())
    rows = {row["name"]: row for row in found["rows"]}
    assert rows.keys() == {"reader", "model", "fused"}
    assert rows["model"]["accuracy"] == 0.5
    assert rows["reader"]["accuracy"] == rows["reader"]["coverage"] == 11 / 14
    assert rows["fused"]["accuracy"] >= 12 / 14
    assert rows["fused"]["coverage"] == 1
    assert all(row["accuracy_low"] <= row["accuracy"] <= row["accuracy_high"] for row in rows.values())
    pairs = {(one["before"], one["after"]): one for one in found["comparisons"]}
    assert pairs["model", "fused"]["difference"] == pytest.approx(rows["fused"]["accuracy"] - 0.5)
    assert summary.counts == {"test images read": 11, "test images not read": 3}
    answers = predictions.read_jsonl(layout.finetune_log("r") / "test_reader.jsonl", skincare_labels())
    assert [one.category for one in answers[:3]] == [None] * 3


def test_name_baseline_is_included_if_it_is_of_the_same_images(layout):
    ranked = predictions.read_jsonl(layout.finetune_log("r") / "test_ranked.jsonl", skincare_labels())
    predictions.write_jsonl(layout.baselines / "name.jsonl", ranked)
    fuse.run(fuse.Config(root=layout.root), layout)
    found = json.loads((layout.finetune_log("r") / "fusion.json").read_text())
    assert [row["name"] for row in found["rows"]] == ["reader", "model", "fused", "name"]
    assert found["comparisons"][-1]["after"] == "name"


def test_reader_is_not_trained_on_val_and_test(layout, monkeypatch):
    learnt = []
    monkeypatch.setattr(
        Reader,
        "fit",
        lambda labels, texts, truths: learnt.append((texts, truths)) or Reader(labels),
    )
    fuse.run(fuse.Config(root=layout.root), layout)
    ((texts, labels),) = learnt
    train = read_dataset(layout, "train")
    assert sorted(labels) == sorted(2 * [one.category for one in train])
    assert {text for text in texts if text.startswith("Noor")} == {
        f"Noor{i} {one.category}" for i, one in enumerate(train)
    }


def test_mismatched_files_are_an_error(layout):
    log = layout.finetune_log("r")
    with pytest.raises(MissingInputError, match=r"finetune\.py"):
        fuse.run(fuse.Config(root=layout.root, run="other"), layout)
    ranked = predictions.read_jsonl(log / "val_ranked.jsonl", skincare_labels())
    predictions.write_jsonl(log / "val_ranked.jsonl", ranked[1:])
    with pytest.raises(StageError, match="other images"):
        fuse.run(fuse.Config(root=layout.root), layout)
    predictions.write_jsonl(log / "val_ranked.jsonl", ranked)
    write_pack_text(layout.pack_text, [pack_text(ranked[0].image_id, "Balm")])
    with pytest.raises(StageError, match=r"never read(.|\n)*read_text\.py"):
        fuse.run(fuse.Config(root=layout.root), layout)
    layout.pack_text.unlink()
    with pytest.raises(MissingInputError, match=r"read_text\.py"):
        fuse.run(fuse.Config(root=layout.root), layout)


class FakePacks:
    """Reads one thing on every file."""

    name = "fake"

    def __init__(self, *texts):
        self.texts = texts

    def read_pixels(self, pixels):
        return pack_text("", *self.texts)

    def stream(self, files):
        return (self.read_pixels(None) for _ in files)


def test_predict_uses_the_fusion_and_marks_unread_images(layout, monkeypatch, capsys):
    fuse.run(fuse.Config(root=layout.root), layout)
    file = next(layout.clean_images.iterdir())
    folder = layout.finetuned_model("r")
    inputs = [input_image(one.name, one.read_bytes()) for one in (file, folder / "config.json")]

    def row(*texts):
        classifier = Classifier.load(folder, skincare_labels(), folder)
        return fused_predictor.FusedPredictor(classifier, FakePacks(*texts)).predict(inputs)

    rates = [one["wanted_risk"] for one in fusion.read(folder)[1]["wanted"]]
    assert rates == [0.05, 0.1, 0.2, 0.3]
    read, broken = row("NOOR", "Clay Mask")
    unread, _ = row()
    assert (read.status, unread.status, broken.status) == ("fused", "model", "unreadable")
    assert "mask" in read.answer
    assert unread.answer == ""
    # The tiny model knows drawings of packs, its say is about the image alone.
    weights, _ = fusion.read(folder)
    fusion.write(folder, dataclasses.replace(weights, model=0.0, reader=1.0), decoder="rank", ocr="fake")
    (read, _), (other, _) = row("Clay Mask"), row("Bath Salts")
    assert (read.category, other.category) == ("Mask", "Bath Salts")
    monkeypatch.setattr(extraction, "PackReader", lambda *_: FakePacks("Bath Salts"))
    predict.run(predict.Config(root=layout.root, images=(str(file),), by="fused"), layout)
    assert "Bath Salts" in capsys.readouterr().out


def test_fusion_is_the_default_of_a_model_that_has_it(layout, monkeypatch):
    created = []
    monkeypatch.setattr(fused_predictor, "FusedPredictor", lambda *_, **__: created.append("fused"))
    monkeypatch.setattr(image_predictor, "is_drawings_only", lambda _: False)
    settings = PredictorSettings()
    assert load_predictor(settings, layout).name.endswith("decoder generate")
    fusion.write(layout.finetuned_model("r"), fusion.Fusion(1, 1, 1))
    load_predictor(settings, layout)
    assert created == ["fused"]
    for options in ({"decoder": "rank"}, {"temperature": 2.0}, {"by": "model"}):
        assert load_predictor(dataclasses.replace(settings, **options), layout).name.startswith(str(layout.root))
    with pytest.raises(StageError, match="of its own"):
        load_predictor(PredictorSettings(by="fused", decoder="rank"), layout)


def test_pack_without_text_has_no_prediction_of_the_baseline(layout):
    parts = {split: read_dataset(layout, split) for split in SPLITS}
    read = baseline_models.read_packs(parts, [], read_pack_text(layout.pack_text), skincare_labels())
    answers = baseline_models.to_predictions(parts["test"], "pack_text", read["test"], skincare_labels())
    assert [one.category for one in answers] == [None] * 3 + [one.category for one in parts["test"][3:]]


@pytest.mark.parametrize(
    ("low", "high", "words"), [(0.01, 0.2, "beats"), (-0.1, 0.2, "does not beat"), (-0.3, -0.1, "is worse than")]
)
def test_verdict_follows_the_interval(low, high, words):
    one = {"before": "reader", "after": "model", "n": 9, "difference": 0.1, "difference_low": low}
    data = SimpleNamespace(fusion={"comparisons": [{**one, "difference_high": high}]})
    assert words in reader_views.reader_verdict(data)
    assert reader_views.reader_verdict(SimpleNamespace(fusion={})) == ""


def test_unread_statuses_ignore_the_reader():
    assert [split_reader.is_read(one) for one in ("read", "abstained", "no_text", "other_script")] == [
        True, True, False, False
    ]  # fmt: skip


@pytest.mark.parametrize("bound", [0.05, 20.0])
def test_weights_at_their_bounds_can_be_read(tmp_path, bound):
    weights = fusion.Fusion(bound, bound, bound)
    fusion.write(tmp_path, weights, n_val=3)
    assert fusion.read(tmp_path) == (weights, {"n_val": 3})
