"""benchmarks/real_photos.py: scores against hand counts, and malformed tables."""

import json

import numpy as np
import pytest
from benchmarks import real_photos
from benchmarks.photo_scores import Answer, score
from PIL import Image

from skincare import images
from skincare.errors import MissingInputError, StageError
from skincare.text_reading.pack_text import PackText, TextLine

BOX = ((0.0, 0.0), (1.0, 0.0), (1.0, 0.1), (0.0, 0.1))
WORDS = {250: ["Face Wash"], 200: ["Toner"], 150: ["ACME"], 0: []}


class FakeEngine:
    name = "fake engine"

    def read(self, image):
        return [TextLine(text, 0.9, BOX, 0.1) for text in WORDS[int(image[0, 0, 0])]]


def read_by_colour(files, cache, name):
    found = []
    for file in files:
        try:
            lines = tuple(FakeEngine().read(images.decode_with_notes(file.path.read_bytes()).pixels))
        except images.BrokenImageError as error:
            found.append(PackText(file.image_id, file.file, "", name, "unreadable", str(error)))
            continue
        found.append(PackText(file.image_id, file.file, "", name, "read" if lines else "no_text", lines=lines))
    return found, len(found)


@pytest.fixture
def photos(tmp_path, monkeypatch):
    """Two photos of one product classified correctly, one wrong, one without evidence, one without text, one broken."""
    monkeypatch.setattr(real_photos, "make_engine", lambda name: FakeEngine())
    monkeypatch.setattr(real_photos, "engine_label", lambda name: "fake engine")
    monkeypatch.setattr(real_photos, "extract_all", read_by_colour)
    rows = ["file,category,product_key,kind"]
    for name, red, category, product in (
        ("a", 250, "Cleanser", "shop one::a"),
        ("b", 250, "Cleanser", "shop one::a"),
        ("c", 200, "Mist", "shop two::c"),
        ("d", 150, "Oil", "shop two::d"),
        ("e", 0, "Moisturiser", "shop two::e"),
    ):
        Image.new("RGB", (40, 40), (red, 0, 0)).save(tmp_path / f"{name}.png")
        rows.append(f"{name}.png,{category},{product},packshot")
    (tmp_path / "f.png").write_bytes(b"no image")
    (tmp_path / "photos.csv").write_text("\n".join([*rows, "f.png,Mask,shop two::f,texture"]))
    return tmp_path


def test_scores_equal_hand_counts(photos):
    result = real_photos.run(real_photos.Config(photos=photos, failures=photos / "failures.csv"))
    one = result["readers"]["table"]
    assert result["photos"] == {"n": 6, "n_products": 5}
    assert result["catalogue"] is None
    assert result["cpu_seconds_a_photo"]["n_photos"] == 6
    assert one["accuracy"]["value"] == pytest.approx(3 / 6), "of the one without text the prior is right"
    assert one["accuracy_no_text_is_wrong"]["value"] == pytest.approx(2 / 6, abs=1e-4)
    assert one["answered"]["value"] == pytest.approx(3 / 6)
    assert one["accuracy_of_answered"]["value"] == pytest.approx(2 / 3, abs=1e-4)
    low, high = one["accuracy"]["interval"]
    assert low < 3 / 6 < high
    assert one["by_shop"]["shop one"]["accuracy"] == 1.0
    assert one["by_kind"]["texture"] == {
        "n": 1, "n_products": 1, "accuracy": 0.0, "n_answered": 0, "n_answered_right": 0
    }  # fmt: skip
    assert one["risk_coverage"][-1]["accuracy"] == pytest.approx(3 / 6)
    assert (photos / "failures.csv").read_text().count("\n") == 5, "a header and four photos"
    assert not any(name in json.dumps(result) for name in ("a.png", "shop one::a"))


def test_catalogue_next_to_the_photos_is_used(photos):
    names = "product_name,product_url,product_type,clean_ingreds,price\n" + "".join(
        f"acme {word} {n},https://shop.example/{word}-{n}/{code}{n}.html,{label},[],1\n"
        for code, (word, label) in enumerate((("zorp", "Peel"), ("quib", "Oil")), start=1000)
        for n in range(1, 4)
    )
    (photos / "skincare_products_clean.csv").write_text(names)
    result = real_photos.run(real_photos.Config(photos=photos))
    assert result["catalogue"] == "skincare_products_clean.csv, 6 names"
    assert set(result["readers"]) == {"table", "table and names"}


def test_most_confident_photos_have_the_highest_confidence():
    def answer(number, confidence, is_right):
        category = "Mask" if is_right else "Peel"
        return Answer(str(number), f"p{number}", "Mask", category, True, confidence > 0.5, confidence)

    answers = [answer(n, 0.9 - n / 100, n < 6) for n in range(10)]
    found = score(answers)
    assert found["accuracy_of_most_confident_60"]["value"] == 1.0
    assert found["accuracy"]["value"] == 0.6
    assert [point["accuracy"] for point in found["risk_coverage"]][5:7] == [1.0, 0.8571]
    mean = np.mean([one.confidence for one in answers])
    assert found["expected_calibration_error"] >= abs(mean - 0.6) - 1e-3


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("file,category\na.png,Mask\n", "no column product_key"),
        ("file,category,product_key\na.png,Shampoo,x\n", "row 2: 'Shampoo'"),
        ("file,category,product_key\nabsent.png,Mask,x\n", "row 2: there is no"),
        ("file,category,product_key\n", "lists no photos"),
    ],
)
def test_malformed_table_raises(tmp_path, text, message):
    (tmp_path / "t.csv").write_text(text)
    with pytest.raises(StageError, match=message):
        real_photos.read_photos(tmp_path / "t.csv")


def test_table_is_found_in_the_folder_or_next_to_it(photos):
    (photos / "photos").mkdir()
    for path in (photos, photos / "photos", photos / "photos.csv"):
        assert real_photos.find_table(path) == photos / "photos.csv"
    with pytest.raises(MissingInputError):
        real_photos.find_table(photos / "absent")


def test_the_shared_table_can_be_read(real_data):
    assert len(real_photos.read_photos(real_photos.find_table(real_data))) == 192
