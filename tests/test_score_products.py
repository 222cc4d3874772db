"""Structured answers of the reader and of a model are scored on the same images, against facts with sources."""

import dataclasses
import json

import pytest

import fuse
import product_facts
import score_products
from skincare.dataset.chat import read_dataset, write_dataset
from skincare.errors import MissingInputError, StageError
from skincare.evaluation import fusion, product_fusion
from skincare.evaluation.product_metrics import FieldScores, outcome
from skincare.files import write_json
from skincare.inference import split_products
from skincare.inference.product_answers import scored_predictions
from skincare.labels import labels_of
from skincare.paths import SPLITS, Layout
from skincare.product.schema import Product
from skincare.prompts import PRODUCT_QUESTION
from skincare.tables import STATED_FACTS, StatedFactRow
from skincare.text_reading import pack_products
from skincare.text_reading.pack_text import PackText, TextLine, write_pack_text
from tests.dataset_helpers import write_catalogue, write_dataset_files
from tests.helpers import prediction

BOX = ((0.0, 0.0), (0.1, 0.0), (0.1, 0.1), (0.0, 0.1))


@pytest.fixture
def layout(tmp_path):
    """Packs that print brand, category and, but for the first test image, the size."""
    found = Layout(tmp_path)
    parts = write_dataset_files(found, {"train": 28, "val": 14, "test": 14})
    everything = [one for part in parts.values() for one in part]
    names = {one.product_id: f"Noor {one.category} Nr {i} {30 + i}ml" for i, one in enumerate(everything)}
    write_catalogue(found, {one.product_id: one.category for one in everything}, names)
    silent = parts["test"][0].image_id
    sizes = {one.image_id: names[one.product_id].split()[-1:] for one in everything} | {silent: []}
    packs = [pack(one.image_id, "NOOR", one.category, *sizes[one.image_id]) for one in everything]
    write_pack_text(found.pack_text, packs)
    return found


def pack(image_id, *texts):
    return PackText(image_id, "f.jpg", "0" * 64, "fake", "read", lines=tuple(TextLine(t, 1.0, BOX, 0.1) for t in texts))


def run(layout, **config):
    return score_products.run(score_products.Config(root=layout.root, **config), layout)


def fields_of(summary, system="reader"):
    return {one["field"]: one for one in summary.results[system]["fields"]}


def test_the_reader_is_scored_where_the_truth_is_known(layout):
    product_facts.run(product_facts.Config(root=layout.root), layout)
    fields = fields_of(run(layout))
    assert (fields["brand"]["f1"], fields["category"]["f1"]) == (1, 1)
    assert (fields["size"]["correct"], fields["size"]["omitted"], fields["size"]["precision"]) == (13, 1, 1)
    assert fields["origin"]["n_known"] == 0
    rows = [json.loads(line) for line in layout.product_answers("reader").read_text().splitlines()]
    assert [row["image_id"] for row in rows] == [one.image_id for one in read_dataset(layout, "test")]
    assert rows[1]["product"]["size"] == rows[1]["truth"]["size"]


def test_a_value_where_the_facts_state_none_is_an_invention(layout):
    examples = read_dataset(layout, "test")
    stated = [StatedFactRow(one.product_id, "size", "-", "pack") for one in examples[:3]]
    STATED_FACTS.write(layout.stated_facts, stated)
    product_facts.run(product_facts.Config(root=layout.root), layout)
    summary = run(layout)
    size = fields_of(summary)["size"]
    # The first image prints no size; the facts of the others contradict their print.
    assert (size["invented"], size["n_absent"], size["n_known"], size["correct"]) == (2, 3, 11, 11)
    assert (size["invention_rate"], size["precision"]) == (2 / 3, 11 / 13)
    rows = [json.loads(line) for line in layout.product_answers("reader").read_text().splitlines()]
    assert [row.get("absent") for row in rows] == [["size"]] * 3 + [None] * 11
    assert "2 of 3" in score_products.table([FieldScores(**size)])
    assert summary.results["reader_minus_majority"]["size"]["n_known"] == 14


def test_brands_of_held_out_products_are_not_known(layout, monkeypatch):
    product_facts.run(product_facts.Config(root=layout.root), layout)
    seen = []
    real = split_products.known_brands_reader
    monkeypatch.setattr(split_products, "known_brands_reader", lambda names: seen.extend(names) or real(names))
    run(layout)
    assert len(seen) == len({one.product_id for one in read_dataset(layout, "train")})


def test_a_models_texts_are_parsed_and_compared_with_the_reader(layout, tmp_path):
    product_facts.run(product_facts.Config(root=layout.root), layout)
    answers = tmp_path / "answers.jsonl"
    examples = read_dataset(layout, "test")
    texts = [f"```json\n{{'brand': 'Noor', 'category': '{one.category}'" for one in examples]
    answers.write_text("".join(
        json.dumps({"image_id": one.image_id, "answer": text}) + "\n" for one, text in zip(examples, texts, strict=True)
    ))  # fmt: skip
    summary = run(layout, answers=answers)
    assert summary.results["model"]["statuses"] == {"truncated": 14}
    assert fields_of(summary, "model")["category"]["f1"] == 1
    assert summary.results["model_minus_reader"]["size"]["difference"] == -13 / 14
    assert summary.results["model_minus_reader"]["category"]["difference"] == 0
    answers.write_text(answers.read_text().split("\n", 1)[1])
    with pytest.raises(StageError, match="no answer about 1 of 14 images"):
        run(layout, answers=answers)
    for bad in ("{", "[]", '{"image_id": "1"}', "[" * 9999):
        answers.write_text(bad)
        with pytest.raises(StageError, match="line 1"):
            run(layout, answers=answers)


def test_what_is_missing_is_named(layout):
    with pytest.raises(MissingInputError, match=r"product_facts\.py"):
        run(layout)
    product_facts.run(product_facts.Config(root=layout.root), layout)
    lines = layout.product_facts.read_text().splitlines(keepends=True)
    absent = read_dataset(layout, "test")[0].product_id
    layout.product_facts.write_text("".join(line for line in lines if f'"product_id": "{absent}"' not in line))
    with pytest.raises(StageError, match=f"such as {absent}"):
        run(layout)
    layout.pack_text.unlink()
    with pytest.raises(MissingInputError, match=r"read_text\.py"):
        run(layout)
    with pytest.raises(StageError, match=", ".join(SPLITS)):
        run(layout, split="all")


def write_predictions(path, examples, **changes):
    """Write predictions as the stages do: each names the category, and a size with its confidence."""
    lines = [
        {"image_id": one.image_id, "split": "test", "target": "product", "text": f'{{"category":"{one.category}"}}',
         "field_log_probabilities": {"category": -0.5}, **changes}
        for one in examples
    ]  # fmt: skip
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))


def test_predictions_of_the_stages_are_scored_compared_and_calibrated(layout):
    product_facts.run(product_facts.Config(root=layout.root), layout)
    examples = read_dataset(layout, "test")
    write_predictions(layout.zero_shot / "predictions.jsonl", examples, text="{}", field_log_probabilities={})
    write_predictions(layout.finetune_log("r") / "test_predictions.jsonl", examples)
    write_json(layout.summary("finetune"), {"results": {"run": "r"}})
    summary = run(layout)
    assert summary.results["systems"] == ["majority", "reader", "zero_shot", "finetuned"]
    assert fields_of(summary, "finetuned")["category"]["f1"] == 1
    assert summary.results["finetuned_minus_zero_shot"]["category"]["difference"] == 1
    assert summary.results["finetuned_minus_reader"]["brand"]["difference"] == -1
    assert "calibration" not in summary.results["zero_shot"]
    (category,) = [one for one in summary.results["finetuned"]["calibration"] if one["field"] == "category"]
    assert (category["n"], category["accuracy"], category["ece"]) == (14, 1, None)
    row = json.loads(layout.product_answers("finetuned").read_text().splitlines()[0])
    assert row["confidences"] == {"category": pytest.approx(0.606531)}
    layout.pack_text.unlink()
    assert run(layout).results["systems"] == ["majority", "zero_shot", "finetuned"]


def write_run(layout):
    """Write a run whose model knows the category of every image but the first of each split, and no size."""
    for split in ("val", "test"):
        examples = read_dataset(layout, split)
        file = layout.finetune_log("r") / f"{split}_predictions.jsonl"
        write_predictions(file, examples, split=split)
        lines = file.read_text().splitlines()
        wrong = json.loads(lines[0]) | {"text": '{"category":"Peel","size":"9 ml"}'}
        wrong["field_log_probabilities"] = {"category": -3.0, "size": -0.1}
        file.write_text("\n".join([json.dumps(wrong), *lines[1:], ""]))
    write_json(layout.summary("finetune"), {"results": {"run": "r"}})


def test_a_model_and_the_reader_are_fused_field_by_field(layout):
    product_facts.run(product_facts.Config(root=layout.root), layout)
    with pytest.raises(MissingInputError, match=r"fine-tuned|finished run"):
        fuse.run(fuse.Config(root=layout.root), layout)
    write_json(layout.summary("finetune"), {"results": {"run": "r"}})
    with pytest.raises(StageError, match=r"never read|ranked"):
        fuse.run(fuse.Config(root=layout.root), layout)
    parts = {split: [structured(one) for one in read_dataset(layout, split)] for split in SPLITS}
    for split, part in parts.items():
        write_dataset(layout, split, part)
    with pytest.raises(MissingInputError, match=r"structured answers of the run(.|\n)*finetune\.py"):
        fuse.run(fuse.Config(root=layout.root), layout)
    write_run(layout)
    summary = fuse.run(fuse.Config(root=layout.root), layout)
    document = summary.results["document"]
    assert document["fused"] > max(document["model"], document["reader"] - 0.01)
    assert summary.results["fused_minus_model"]["low"] > 0
    scored = run(layout)
    assert scored.results["systems"] == ["majority", "reader", "finetuned", "fused"]
    fields = fields_of(scored, "fused")
    assert [fields[name]["f1"] for name in ("brand", "category")] == [1, 1]
    assert fields["size"]["correct"] == 13, "the reader knows all sizes that are printed"
    assert scored.results["fused_minus_finetuned"]["document"]["low"] > 0
    assert document["fused"] == pytest.approx(scored.results["fused"]["document"])
    _, notes = product_fusion.read(layout.finetuned_model("r"))
    assert notes == {"n_val": 14, "ocr": "fake"}
    # A second fit gives the same bytes.
    before = (layout.finetuned_model("r") / product_fusion.FILE).read_bytes()
    fuse.run(fuse.Config(root=layout.root), layout)
    assert (layout.finetuned_model("r") / product_fusion.FILE).read_bytes() == before
    packs = pack_products.load(layout.finetuned_model("r") / fusion.READER_FOLDER, labels_of(layout))
    assert "Noor" in packs.rules.brands


def structured(one):
    product = Product(category=one.category).to_json()
    return dataclasses.replace(one, question=PRODUCT_QUESTION, product=product)


def test_a_run_s_predictions_are_scored_with_the_absent_fields_of_the_facts(layout):
    example = structured(read_dataset(layout, "test")[0])
    text = Product(category=example.category, origin="France").to_json()
    predicted = [prediction(example.image_id, example.category, example.category, text=text, target="product")]
    (plain,) = scored_predictions([example], predicted)
    (lacking,) = scored_predictions([example], predicted, {example.product_id: frozenset(["origin"])})
    assert [outcome(one, "origin") for one in (plain, lacking)] == [None, "invented"]
    assert [outcome(one, "category") for one in (plain, lacking)] == ["correct", "correct"]


def test_predictions_of_categories_and_of_other_splits_are_left_out(layout):
    product_facts.run(product_facts.Config(root=layout.root), layout)
    examples = read_dataset(layout, "test")
    write_predictions(layout.zero_shot / "predictions.jsonl", examples, target="category")
    write_predictions(layout.finetune_log("r") / "test_predictions.jsonl", examples, split="val")
    assert run(layout).results["systems"] == ["majority", "reader"]
    with pytest.raises(StageError, match="no structured answers"):
        run(layout, run="r")


def test_the_majority_is_that_of_the_training_products(layout):
    product_facts.run(product_facts.Config(root=layout.root), layout)
    fields = fields_of(run(layout), "majority")
    assert fields["brand"]["f1"] == 1
    assert fields["category"]["correct"] == 1, "each of 14 categories has one test image"
    rows = [json.loads(line)["product"] for line in layout.product_answers("majority").read_text().splitlines()]
    assert len({json.dumps(row) for row in rows}) == 1
    assert rows[0]["origin"] is None
