"""What a pack states is read by rules; what it does not state stays unknown."""

import csv
import dataclasses
import json
from pathlib import Path
from types import SimpleNamespace

import pytest

import predict
from skincare.errors import MissingInputError, StageError
from skincare.inference.image_predictions import ImagePrediction
from skincare.inference.prediction_files import PredictionWriter, columns_of, finished_rows, format_rows
from skincare.labels import labels_of
from skincare.paths import Layout
from skincare.product.schema import Product
from skincare.text_reading import extraction
from skincare.text_reading.pack_products import product_reader
from skincare.text_reading.pack_text import PackText
from skincare.text_reading.product_reader import ProductReader
from tests.dataset_helpers import write_catalogue
from tests.pack_lines import pack_lines

READER = ProductReader(["Estée Lauder", "Zorbi"], frozenset(["gentle"]))


def read(*texts, category=None):
    return READER.read(pack_lines(*texts), category).model_dump(exclude_none=True)


def test_a_whole_pack():
    found = read(
        ("ESTÊE LAUDER", 1), ("Nutritious", 1.6), ("Night Cleansing Foam", 1),
        ("cleans gently and is pleasant", 0.3),
        ("4.2 FL. OZ. LIQ./125ml e", 0.5), ("Made in France", 0.3), category="Cleanser",
    )  # fmt: skip
    assert found == {
        "brand": "Estée Lauder", "category": "Cleanser", "country": "France",
        "name": "Estée Lauder Nutritious Night Cleansing Foam",
        "origin": "France", "size": "125 ml", "forNightOrMorning": "night",
    }  # fmt: skip


def test_a_known_brand_wins_over_larger_unknown_words():
    assert read(("EXOWHITE", 3), ("Zorbi", 0.6), "Serum")["brand"] == "Zorbi"


def test_the_back_of_a_pack():
    found = read(
        "How to use: Apply to clean skin", "in the morning and evening.", "INGREDIENTS: Aqua, Glycerin,",
        "Parfum (Fragrance, Linalool)", "Caution: avoid the eyes", "Manufactured by: Acme Ltd, London",
    )  # fmt: skip
    assert found["howToUse"] == "Apply to clean skin in the morning and evening."
    assert found["forNightOrMorning"] == "morning and night"
    assert found["ingredients"] == ("Aqua", "Glycerin", "Parfum (Fragrance, Linalool)")
    assert found["manufacturer"] == "Acme Ltd"


def test_claims_are_no_list_of_ingredients_and_no_time_of_use():
    found = read("natural ingredients inside, gentle", "Ingredients of the sea", "24H All Day Moisture Cream",
                 "with evening primrose oil", "7 Day Mask")  # fmt: skip
    assert not {"ingredients", "forNightOrMorning"} & set(found)


def test_a_pack_without_text_states_nothing():
    assert read() == {}
    assert read(category="Oil") == {"category": "Oil"}
    assert "name" not in read("12345", "50%")


def test_predict_gives_a_json_line_per_image(tmp_path, monkeypatch, capsys):
    packs = [
        PackText("0", "a.jpg", "", "fake", "read", lines=tuple(pack_lines("Elemis", "Night Cream", "50ml"))),
        PackText("1", "b.jpg", "", "fake", "no_text"),
        PackText("2", "c.jpg", "", "fake", "unreadable", "not_an_image"),
    ]
    for name in ("a.jpg", "b.jpg", "c.jpg"):
        (tmp_path / name).touch()
    fake = SimpleNamespace(name="fake", stream=lambda files: (pack for _, pack in zip(files, packs, strict=True)))
    monkeypatch.setattr(extraction, "PackReader", lambda *_: fake)
    config = predict.Config(root=tmp_path / "root", images=(str(tmp_path),), target="product")
    summary = predict.run(config, Layout(tmp_path / "root"))
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [(Path(row["file"]).name, row["outcome"], row["status"]) for row in rows] == [
        ("a.jpg", "answered", "read"), ("b.jpg", "abstained", "no_text"), ("c.jpg", "failed", "unreadable"),
    ]  # fmt: skip
    assert {key: value for key, value in rows[0]["product"].items() if value} == {
        "brand": "Elemis", "category": "Moisturiser", "name": "Elemis Night Cream", "size": "50 ml",
        "forNightOrMorning": "night",
    }  # fmt: skip
    assert set(rows[1]["product"].values()) == {None}
    assert (rows[2]["product"], rows[2]["reason"]) == (None, "not_an_image")
    assert summary.counts == {"answered": 1, "abstained": 1, "failed": 1}
    assert rows[0]["confidences"].keys() == {"brand", "category", "name", "size"}
    assert rows[1]["confidences"] == {}
    with pytest.raises(MissingInputError, match="fine-tuned model"):
        predict.run(dataclasses.replace(config, by="fused"), Layout(tmp_path / "root"))
    with pytest.raises(StageError, match="too many fields for a table"):
        predict.run(dataclasses.replace(config, form="table"), Layout(tmp_path / "root"))


def test_products_as_csv_have_a_column_per_field_and_can_be_resumed(tmp_path):
    values = Product(brand="=1+1", ingredients=("Aqua", "-2"), size="50 ml").model_dump(mode="json")
    row = ImagePrediction("=a.jpg", "Unknown", None, "read", answer="@x", text=("+cmd",), product=values,
                          confidences={"brand": 0.75})  # fmt: skip
    failed = ImagePrediction("b.jpg", "Unknown", None, "failed", reason="-", product={})
    path = tmp_path / "rows.csv"
    with path.open("wb") as file:
        PredictionWriter(file, "csv", target="product").write([row, failed])
    found = list(csv.DictReader(path.open(encoding="utf-8", newline="")))
    assert tuple(found[0]) == columns_of("product")
    assert (found[0]["brand"], found[0]["brand_confidence"], found[0]["size_confidence"]) == ("'=1+1", "0.7500", "")
    assert (found[0]["ingredients"], found[0]["answer"], found[0]["text"]) == ("Aqua; -2", "'@x", "'+cmd")
    assert (found[1]["outcome"], found[1]["brand"]) == ("failed", "")
    finished = finished_rows(path, "csv", "product")
    assert [finished.take(name) for name in ("=a.jpg", "b.jpg", "c.jpg")] == ["answered", "failed", None]
    with pytest.raises(StageError, match="not a prediction"):
        finished_rows(path, "csv", "category")
    path = tmp_path / "rows.jsonl"
    path.write_text(format_rows([row], "jsonl"))
    assert len(finished_rows(path, "jsonl", "product")) == 1
    with pytest.raises(StageError, match="another --target"):
        finished_rows(path, "jsonl", "category")


def test_the_catalogue_teaches_brands(tmp_path):
    layout = Layout(tmp_path)
    assert product_reader(layout, labels_of(layout)).brands == ()
    write_catalogue(
        layout, {"10000001": "Oil", "10000002": "Serum"}, {"10000001": "Noor Oil", "10000002": "Noor Serum"}
    )
    assert product_reader(layout, labels_of(layout)).brands == ("Noor",)
