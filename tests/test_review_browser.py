"""The review sheet in a real browser: marked by hand and by keys, it keeps its marks and saves them to calibrate."""

import pytest

from skincare.cleaning import threshold_review
from skincare.cleaning.image_tables import MARKS
from skincare.paths import Layout
from tests.browser import CONTRAST, UNNAMED
from tests.test_review_sheet import HOSTILE, QUESTION, measured


@pytest.fixture(scope="module")
def layout(tmp_path_factory):
    found = Layout(tmp_path_factory.mktemp("review"))
    threshold_review.review(QUESTION, measured(found, 40, name=HOSTILE), found)
    return found


@pytest.fixture
def page(tab, layout):
    """The sheet as opened for the first time."""
    url = layout.review_sheet("blurred").as_uri()
    tab.set_viewport_size({"width": 1280, "height": 900})
    tab.goto(url)
    tab.evaluate("localStorage.clear()")
    tab.trouble.clear()
    tab.goto(url)
    return tab


def progress(page):
    return page.locator("#progress").inner_text()


def saved(page, path):
    with page.expect_download() as download:
        page.click("#save")
    assert download.value.suggested_filename == "review_blurred_marks.csv"
    download.value.save_as(path)
    return MARKS.read(path)


def test_it_opens_without_complaint_and_foreign_text_stays_text(page, layout):
    assert {line for line in page.trouble if not line.startswith("data:")} == {page.url}
    assert page.title() == "Review: blurred"
    assert HOSTILE in page.locator(".file").first.inner_text()
    assert page.locator(".card").count() == 40
    assert progress(page) == "0 of 40 marked: 0 keep, 0 reject"


def test_keys_and_clicks_mark_move_and_undo(page):
    page.keyboard.press("x")
    page.keyboard.press("Space")
    page.keyboard.press("j")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("k")
    page.keyboard.press("x")
    verdicts = page.locator(".card").evaluate_all("all => all.slice(0, 5).map((one) => one.dataset.verdict)")
    assert verdicts == ["reject", "keep", "", "reject", ""]
    page.locator(".card").nth(9).get_by_role("button", name="Keep").click()
    assert progress(page) == "4 of 40 marked: 2 keep, 2 reject"
    page.keyboard.press("u")
    page.click("#undo")
    assert progress(page) == "2 of 40 marked: 1 keep, 1 reject"
    assert page.evaluate("document.activeElement.dataset.id") == "4_1"


def test_marks_survive_a_reload_and_the_first_open_image_is_next(page):
    page.keyboard.press("x")
    page.keyboard.press("x")
    page.reload()
    assert progress(page) == "2 of 40 marked: 0 keep, 2 reject"
    assert page.evaluate("document.activeElement.dataset.id") == "3_1"


def test_what_is_saved_is_what_calibrate_reads(page, layout, tmp_path):
    for i in range(40):
        page.keyboard.press("Space" if i >= 26 else "x")
    marks = saved(page, tmp_path / "marks.csv")
    assert len(marks) == 40
    row, read = threshold_review.read_marks(tmp_path / "marks.csv", layout, "blurred")
    assert (row.limit, sum(one.is_good for one in read)) == (60.0, 14)
    headline = threshold_review.calibrate(tmp_path / "marks.csv", None, None, layout).headline
    assert "python src/clean.py --thresholds blurred 79.5" in headline


@pytest.mark.parametrize("width", [1280, 390])
def test_everything_can_be_read_named_and_reached(page, width):
    page.set_viewport_size({"width": width, "height": 800})
    page.keyboard.press("x")
    page.keyboard.press("Space")
    assert page.evaluate(CONTRAST) == []
    assert page.evaluate(UNNAMED) == 0
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
