"""The reader of a root folder is fitted once, on training texts only, and refitted when they change."""

import numpy as np
import pytest

from skincare.dataset.chat import example, write_dataset
from skincare.labels import skincare_labels
from skincare.paths import Layout
from skincare.text_reading import reader_store
from skincare.text_reading.pack_text import PackText, TextLine, write_pack_text
from skincare.text_reading.reader import Reader, read_settings

CATEGORIES = skincare_labels().names

BOX = ((0.0, 0.0), (1.0, 0.0), (1.0, 0.1), (0.0, 0.1))
HEADER = "product_name,product_url,product_type,clean_ingreds,price\n"


def write_catalogue(layout, *rows):
    layout.catalogue.parent.mkdir(parents=True, exist_ok=True)
    lines = [f"{name},https://shop.example/a-{i}/1000{i}.html,{label},[],1\n" for i, (name, label) in enumerate(rows)]
    layout.catalogue.write_text(HEADER + "".join(lines))


@pytest.fixture
def layout(tmp_path):
    found = Layout(tmp_path)
    write_catalogue(found, ("acme zorp", "Peel"), ("bolt zorp", "Peel"), ("acme quib", "Oil"), ("bolt quib", "Oil"))
    return found


def likeliest(reader, text):
    return CATEGORIES[int(reader.log_probabilities([[text]]).argmax())]


def test_without_training_texts_there_is_no_classifier(tmp_path):
    assert reader_store.stored_reader(Layout(tmp_path)).classifier is None
    assert not Layout(tmp_path).reader_cache.exists()


def test_catalogue_is_fitted_once(layout, monkeypatch):
    assert likeliest(reader_store.stored_reader(layout), "zorp") == "Peel"
    monkeypatch.setattr(Reader, "fit", None)
    again = reader_store.stored_reader(layout, threshold=0.1)
    assert (likeliest(again, "zorp"), again.threshold) == ("Peel", 0.1)


@pytest.mark.parametrize("damaged", ["reader.npz", "reader.json"])
@pytest.mark.parametrize("content", [b"", b"garbage", b"[]"])
def test_damaged_reader_is_refitted(layout, damaged, content):
    reader_store.stored_reader(layout)
    (layout.reader_cache / damaged).write_bytes(content)
    assert likeliest(reader_store.stored_reader(layout), "zorp") == "Peel"
    assert likeliest(Reader.load(layout.reader_cache, skincare_labels()), "zorp") == "Peel"


def test_changed_catalogue_is_refitted(layout):
    reader_store.stored_reader(layout)
    key = read_settings(layout.reader_cache)["key"]
    write_catalogue(layout, ("acme zorp", "Balm"), ("bolt zorp", "Balm"), ("acme quib", "Oil"), ("bolt quib", "Oil"))
    assert likeliest(reader_store.stored_reader(layout), "zorp") == "Balm"
    assert read_settings(layout.reader_cache)["key"] != key


def test_only_training_packs_are_used(layout):
    packs = {"train": ("1_1", "vrum", "Mist"), "val": ("2_1", "plix", "Mask"), "test": ("3_1", "plix", "Mask")}
    rows = []
    for split, (image_id, word, label) in packs.items():
        file = f"clean_dataset/images/a_{image_id}.jpg"
        write_dataset(layout, split, [example(file, label, skincare_labels())])
        rows.append(PackText(image_id, file, "", "engine", "read", lines=(TextLine(word, 1.0, BOX, 0.1),)))
    write_pack_text(layout.pack_text, rows)
    reader = reader_store.stored_reader(layout)
    assert likeliest(reader, "vrum") == "Mist"
    assert "vrum" in str(sorted(reader.classifier.terms))
    assert "plix" not in str(sorted(reader.classifier.terms))
    assert read_settings(layout.reader_cache)["n_texts"] == 5


def test_one_category_gives_no_classifier(layout, caplog):
    write_catalogue(layout, ("acme", "Oil"), ("bolt", "Oil"))
    assert reader_store.stored_reader(layout).classifier is None
    assert "fewer than two categories" in caplog.text


def test_damaged_store_is_replaced(layout):
    reader_store.stored_reader(layout)
    (layout.reader_cache / "reader.json").write_text("{")
    assert np.isfinite(reader_store.stored_reader(layout).log_probabilities([["zorp"]])).all()
