"""Five made-up labels of kitchen goods, from a folder of photos to a prediction, without a skincare category."""

import csv
import json
import re
from dataclasses import replace
from types import SimpleNamespace

import pytest

import baselines
import build_dataset
import clean
import export_dataset
import finetune
import fuse
import import_images
import predict
import report
import score
import zero_shot
from skincare.dataset.chat import read_dataset
from skincare.errors import StageError
from skincare.inference import predictions
from skincare.labels import labels_of, labels_of_model, skincare_labels
from skincare.paths import SPLITS, TINY_MODEL, Layout
from skincare.text_reading import extraction
from skincare.text_reading.pack_text import PackText, TextLine, write_pack_text
from skincare.text_reading.reader_store import stored_reader
from tests.dataset_helpers import jpeg, pack

LABELS = """
domain = "kitchen"
question = "Which kitchen good is this?"
instruction = "You sort kitchen goods. Choose one of: {labels}."
nameless = ["kettle corn"]
[parents]
"Drinks" = ["Mug", "Tea Kettle"]
"Food" = ["Bread Bin", "Cake Tin", "Tray"]
[[labels]]
name = "Mug"
aliases = ["cup", "beaker"]
[[labels]]
name = "Tea Kettle"
aliases = {en = ["kettle"], de = ["Wasserkocher"]}
[[labels]]
name = "Bread Bin"
[[labels]]
name = "Cake Tin"
[[labels]]
name = "Tray"
"""
NAMES = ("Mug", "Tea Kettle", "Bread Bin", "Cake Tin", "Tray")
FOLDERS = ("cup", "Tea Kettle", "Bread Bin", "Cake Tin", "Tray")  # an alias is a label's name too
N_PRODUCTS = 4
BOX = ((0.0, 0.0), (1.0, 0.0), (1.0, 0.1), (0.0, 0.1))
TINY = {"model": str(TINY_MODEL), "min_tokens": 36, "max_tokens": 36}


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """Run every stage in a root of its own; return the layout and the folder of photos."""
    photos = tmp_path_factory.mktemp("photos")
    for i, name in enumerate(FOLDERS):
        for n in range(N_PRODUCTS):
            file = photos / name / f"{name.lower().replace(' ', '-')} no {n}.jpg"
            file.parent.mkdir(exist_ok=True)
            file.write_bytes(jpeg(pack(100 * i + n)))
    layout = Layout(tmp_path_factory.mktemp("root"))
    layout.root.joinpath("labels.toml").write_text(LABELS)
    root = {"root": layout.root}
    import_images.run(import_images.Config(source=photos, **root), layout)
    clean.run(clean.Config(**root), layout)
    build_dataset.run(build_dataset.Config(**root), layout)
    export_dataset.run(export_dataset.Config(**root), layout)
    run_stage("baselines", baselines, layout, TINY)
    run_stage("zero_shot", zero_shot, layout, {**TINY, "decoder": "rank"})
    run_stage("finetune", finetune, layout, {**TINY, "recipe": "sample-head", "run": "kitchen", "max_epochs": 2})
    run_stage("report", report, layout, {"write_gate_baseline": layout.root / "gate.json"})
    return SimpleNamespace(layout=layout, photos=photos)


def run_stage(name, module, layout, options):
    """Run a stage with its summary, which the report reads."""
    from skincare import stage

    assert stage.execute(name, module.Config(root=layout.root, **options), layout, module.run) == 0


@pytest.mark.slow
def test_every_product_is_in_a_split_under_a_label_of_the_file(done):
    examples = [one for split in SPLITS for one in read_dataset(done.layout, split)]
    assert {one.category for one in examples} == set(NAMES)
    assert len(examples) == len(NAMES) * N_PRODUCTS
    assert {one.question for one in examples} == {"Which kitchen good is this?"}


@pytest.mark.slow
def test_predictions_metrics_and_manifests_follow_the_labels(done):
    labels = labels_of(done.layout)
    log = done.layout.finetune_log("kitchen")
    for file in (done.layout.zero_shot / "predictions.jsonl", log / "test_predictions.jsonl"):
        found = predictions.read_jsonl(file, labels)
        assert {len(one.log_probabilities) for one in found} == {5}
        assert {one.category for one in found} <= set(NAMES)
    for folder in (done.layout.zero_shot, log):
        manifest = json.loads((folder / "manifest.json").read_text())
        assert manifest["labels"]["digest"] == manifest["evaluation"]["labels"] == labels.digest
        assert manifest["prompt"].count("You sort kitchen goods. Choose one of: Mug, Tea Kettle,") == 1
    scores = json.loads((log / "test_metrics.json").read_text())
    assert [one["category"] for one in scores["categories"]] == list(NAMES)
    with pytest.raises(StageError, match="is none of the labels"):
        predictions.read_jsonl(log / "test_predictions.jsonl", skincare_labels())


@pytest.mark.slow
def test_nothing_that_is_written_names_a_skincare_category(done):
    layout, log = done.layout, done.layout.finetune_log("kitchen")
    card = layout.finetuned_model("kitchen") / "README.md"
    for path in (layout.report_html, layout.report_markdown, card, log / "confidence.json", layout.dataset("train"),
                 layout.export("webdataset") / "dataset_card.md", layout.root / "gate.json",
                 layout.finetuned_model("kitchen") / "chat_template.jinja"):  # fmt: skip
        text = path.read_text(encoding="utf-8")
        assert not re.search(rf"\b(?:{'|'.join(skincare_labels().names)}|skincare (?!gate))\b", text, re.IGNORECASE), (
            path
        )
    for path in (layout.report_html, layout.report_markdown, card):
        assert all(name in path.read_text(encoding="utf-8") for name in NAMES)
    assert "Drinks" in layout.report_markdown.read_text(encoding="utf-8")
    assert "Kitchen product recognition" in layout.report_html.read_text(encoding="utf-8")
    assert "as published" not in layout.report_html.read_text(encoding="utf-8")


@pytest.mark.slow
def test_the_model_carries_its_labels_and_predict_uses_them(done, tmp_path):
    """In a root without a labels file, whose labels would be the skincare categories."""
    folder = done.layout.finetuned_model("kitchen")
    assert labels_of_model(folder, skincare_labels()) == labels_of(done.layout)
    for decoder in ("head", "constrained", "generate"):
        config = predict.Config(
            root=tmp_path, images=(str(done.photos / "Tray"),), model=str(folder), decoder=decoder,
            csv=tmp_path / "out.csv",
        )  # fmt: skip
        predict.run(config, Layout(tmp_path))
        rows = list(csv.DictReader((tmp_path / "out.csv").open()))
        assert len(rows) == N_PRODUCTS
        assert {row["category"] for row in rows} <= {*NAMES, *(["Unknown"] if decoder == "generate" else [])}


@pytest.mark.slow
def test_other_labels_than_those_of_model_or_dataset_are_an_error(done, tmp_path):
    folder = done.layout.finetuned_model("kitchen")
    other = tmp_path / "other.toml"
    other.write_text('labels = ["Cat", "Dog"]')
    layout = Layout(done.layout.root, other)
    with pytest.raises(StageError, match="was trained with other labels than"):
        config = predict.Config(root=tmp_path, images=(str(done.photos),), model=str(folder), labels=other)
        predict.run(config, Layout(tmp_path, other))
    with pytest.raises(StageError, match=r"test\.json, element 1: .*is"):
        zero_shot.run(zero_shot.Config(root=layout.root, **TINY), layout)
    other.write_text(LABELS.replace('name = "Mug"', 'name = "Jug"').replace('["Mug", "Tea', '["Jug", "Tea'))
    with pytest.raises(StageError, match="'Mug' is none of the labels"):
        score.run(score.Config(root=layout.root), layout)
    other.write_text(LABELS.replace("Which kitchen good", "Which good"))
    with pytest.raises(StageError, match="the question is 'Which kitchen good is this"):
        zero_shot.run(zero_shot.Config(root=layout.root, **TINY), layout)


@pytest.mark.slow
def test_the_reader_knows_the_words_of_the_file(done):
    reader = stored_reader(done.layout)
    assert reader.predict(["Wasserkocher"]).label == "Tea Kettle"
    assert reader.predict(["Beaker"]).label == "Mug"
    assert reader.predict(["kettle corn"]).evidence == ()
    assert len(reader.predict(["Body Wash"]).log_probabilities) == 5


@pytest.mark.slow
def test_the_fusion_keeps_the_words_that_its_reader_was_fitted_with(done, monkeypatch):
    """Aliases may be added after the model's training: the model does not mind, the reader of the fusion knows them."""
    layout = done.layout
    rows = [
        PackText(one.image_id, one.image, "", "fake", "read", lines=(TextLine(one.category, 1.0, BOX, 0.1),))
        for split in SPLITS
        for one in read_dataset(layout, split)
    ]
    write_pack_text(layout.pack_text, rows)
    file = layout.root / "labels.toml"
    file.write_text(LABELS.replace('"beaker"', '"beaker", "zorp"'))
    fuse.run(fuse.Config(root=layout.root), layout)
    file.write_text(LABELS)
    pack = replace(rows[0], lines=(TextLine("Zorp", 1.0, BOX, 0.1),))
    packs = SimpleNamespace(name="fake", stream=lambda files: (pack for _ in files))
    monkeypatch.setattr(extraction, "PackReader", lambda *_: packs)
    config = predict.Config(
        root=layout.root, images=(str(next(layout.clean_images.iterdir())),),
        model=str(layout.finetuned_model("kitchen")), by="fused", csv=layout.root / "fused.csv",
    )  # fmt: skip
    predict.run(config, layout)
    (row,) = csv.DictReader((layout.root / "fused.csv").open())
    assert row["answer"] == "zorp"
