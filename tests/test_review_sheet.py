"""The sheet shows the images next to the threshold and nothing foreign; only marks made on it count."""

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from skincare.cleaning import threshold_review
from skincare.cleaning.image_tables import MARKS, REVIEW, MarkRow
from skincare.cleaning.threshold_review import Measured, Question
from skincare.errors import StageError
from skincare.paths import Layout
from tests.dataset_helpers import jpeg

QUESTION = Question("blurred", "sharpness below the threshold", 60.0, is_least=True)
HOSTILE = '"><script>document.title="run"</script><img src=x onerror=alert(1)>'.replace("/", "")


def measured(layout, n=6, side_px=64, name="pack"):
    layout.product_images.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(0)
    found = []
    for i in range(1, n + 1):
        file = layout.product_images / f"{name}_{i}_1.jpg"
        file.write_bytes(jpeg(Image.fromarray(noise.integers(0, 255, (side_px, side_px, 3), dtype=np.uint8))))
        found.append(Measured(f"{i}_1", str(i), layout.relative(file), 120.0 * i / n, None))
    return found


def marks_of(layout, verdict=lambda row: "keep" if row.value >= 60 else "reject"):
    rows = REVIEW.read(layout.review_table("blurred"))
    return [MarkRow(row.sheet, row.check, row.image_id, row.value, verdict(row)) for row in rows]


@pytest.mark.parametrize("is_least", [True, False])
def test_as_many_are_shown_on_either_side_the_nearest_first(is_least):
    question = replace(QUESTION, is_least=is_least)
    images = [Measured(f"{i}_1", str(i), "", float(i), None) for i in range(200)]
    chosen = threshold_review.choose_images(question, images, n=10)
    assert [one.value for one in chosen] == [float(i) for i in (range(50, 70) if is_least else range(51, 71))]
    assert sum(question.rejects(one.value) for one in chosen) == 10
    assert len(threshold_review.choose_images(question, images[:63], n=10)) == (13 if is_least else 12)


def test_the_page_is_self_contained_and_foreign_text_stays_text(tmp_path):
    layout = Layout(tmp_path)
    threshold_review.review(QUESTION, measured(layout, name=HOSTILE), layout)
    page = layout.review_sheet("blurred").read_text(encoding="utf-8")
    assert "://" not in page
    assert '<script>document.title="run"' not in page
    assert page.count("data:image/jpeg;base64,") == 6


def test_the_page_stays_below_ten_megabytes(tmp_path, monkeypatch):
    layout = Layout(tmp_path)
    monkeypatch.setattr(threshold_review, "_MAX_CHARACTERS", 60_000)
    summary = threshold_review.review(QUESTION, measured(layout, 12, 128), layout)
    assert 0 < summary.counts["shown"] < 12
    assert layout.review_sheet("blurred").stat().st_size < 60_000 + 30_000
    values = [row.value for row in REVIEW.read(layout.review_table("blurred"))]
    assert 50 < np.median(values) < 80, "those farthest from the threshold are left out"


BAD = {
    "another sheet": lambda marks: [replace(one, sheet="0" * 16) for one in marks],
    "not on the sheet": lambda marks: [replace(marks[0], image_id="77_1")],
    "with value": lambda marks: [replace(marks[0], value=99.0)],
    "marked once": lambda marks: [marks[0], marks[0]],
    "keep or reject": lambda marks: [replace(marks[0], verdict="maybe")],
    "marks of dark": lambda marks: [replace(one, check="dark") for one in marks],
    "no image is marked": lambda marks: [],
}


@pytest.mark.parametrize("message", BAD)
def test_marks_that_do_not_belong_to_the_sheet_are_refused(tmp_path, message):
    layout = Layout(tmp_path)
    threshold_review.review(QUESTION, measured(layout), layout)
    path = tmp_path / "marks.csv"
    MARKS.write(path, BAD[message](marks_of(layout)))
    with pytest.raises(StageError, match=message):
        threshold_review.read_marks(path, layout, "blurred")


def test_the_name_of_a_check_cannot_lead_out_of_the_folder(tmp_path):
    path = tmp_path / "marks.csv"
    MARKS.write(path, [MarkRow("", "../../etc/passwd", "1_1", 1.0, "keep")])
    with pytest.raises(StageError, match="is no check"):
        threshold_review.read_marks(path, Layout(tmp_path), None)


def test_an_edited_sheet_is_refused(tmp_path):
    layout = Layout(tmp_path)
    threshold_review.review(QUESTION, measured(layout), layout)
    path = tmp_path / "marks.csv"
    MARKS.write(path, marks_of(layout))
    assert len(threshold_review.read_marks(path, layout, "blurred")[1]) == 6
    rows = REVIEW.read(layout.review_table("blurred"))
    REVIEW.write(layout.review_table("blurred"), [replace(rows[0], value=1.0), *rows[1:]])
    with pytest.raises(StageError, match="changed since"):
        threshold_review.read_marks(path, layout, "blurred")
