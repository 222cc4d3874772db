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
from skincare.text_reading.pack_text import PackText, TextLine
from skincare.text_reading.product_reader import ProductReader, known_brand, printed_size
from tests.dataset_helpers import write_catalogue

BOX = ((0.0, 0.0), (1.0, 0.0), (1.0, 0.1), (0.0, 0.1))
READER = ProductReader(
    ("Estée Lauder", "The Ordinary", "MAC", "La Roche-Posay"), frozenset(["gentle", "face", "cream"])
)


def lines(*texts, height=0.1):
    return [
        TextLine(*((text, 0.9, BOX, height) if isinstance(text, str) else (text[0], 0.9, BOX, text[1])))
        for text in texts
    ]


def read(*texts, category=None):
    return READER.read(lines(*texts), category).model_dump(exclude_none=True)


def test_a_whole_pack():
    found = read(
        ("ESTÊE LAUDER", 0.06), ("Nutritious", 0.1), ("Night Cleansing Foam", 0.06),
        ("cleans gently and is pleasant", 0.02),
        ("4.2 FL. OZ. LIQ./125ml e", 0.03), ("Made in France", 0.02), category="Cleanser",
    )  # fmt: skip
    assert found == {
        "brand": "Estée Lauder", "category": "Cleanser", "name": "Estée Lauder Nutritious Night Cleansing Foam",
        "origin": "France", "size": "125 ml", "forNightOrMorning": "night",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("texts", "brand"),
    [
        (["The", "Ordinary.", "Niacinamide 10%"], "The Ordinary"),
        (["LAROCHE-POSAY", "EFFACLAR"], "La Roche-Posay"),
        (["an extraordinary cream for the face"], ""),
        (["MACADAMIA"], ""),
        (["MAC"], "MAC"),
        ([], ""),
    ],
)
def test_a_known_brand_fills_its_lines(texts, brand):
    assert known_brand(texts, READER.brands) == brand


@pytest.mark.parametrize(
    ("texts", "brand"),
    [
        (["GENTLE", "Neutriderm", "Face Cream"], "Neutriderm"),
        (["125ml", "50 %", "BABOR"], "BABOR"),
        (["Gentle Face Cream"], None),
        ([("small print words", 0.02), ("BIG", 0.1)], "BIG"),
    ],
)
def test_an_unknown_brand_is_the_first_large_line_of_uncommon_words(texts, brand):
    assert read(*texts).get("brand") == brand


@pytest.mark.parametrize(
    ("texts", "size"),
    [
        (["200mle"], "200 ml"),
        (["e75 ml"], "75 ml"),
        (["5Oml"], "50 ml"),
        ([("30 ml", 0.03), ("50 ml", 0.05)], "50 ml"),
        ([("30 ml", 0.03), ("30ML / 1 FL OZ", 0.02), ("50 ml", 0.05)], "30 ml"),
        (["50 g", "12 pads"], "50 g"),
        (["no size"], None),
    ],
)
def test_the_size_is_what_most_lines_say(texts, size):
    found = printed_size(lines(*texts))
    assert (str(found) if found else None) == size


def test_ingredients_follow_their_heading():
    assert read("Serum X", "INGREDIENTS: Aqua, Glycerin,", "Parfum (Fragrance, Linalool)")["ingredients"] == (
        "Aqua", "Glycerin", "Parfum (Fragrance, Linalool)",
    )  # fmt: skip
    assert "ingredients" not in read("natural ingredients inside, gentle")


def test_a_pack_without_text_states_nothing():
    assert read() == {}
    assert read(category="Oil") == {"category": "Oil"}
    assert "name" not in read("12345", "50%")


def test_predict_gives_a_json_line_per_image(tmp_path, monkeypatch, capsys):
    packs = [
        PackText("0", "a.jpg", "", "fake", "read", lines=tuple(lines("Elemis", "Night Cream", "50ml"))),
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
    assert product_reader(layout, labels_of(layout)) == ProductReader()
    write_catalogue(
        layout, {"10000001": "Oil", "10000002": "Serum"}, {"10000001": "Noor Oil", "10000002": "Noor Serum"}
    )
    assert product_reader(layout, labels_of(layout)).brands == ("Noor",)
