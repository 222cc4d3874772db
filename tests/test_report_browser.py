"""The report in a real browser: it opens, filters, leads from a matrix to its images; nothing hostile runs."""

import itertools
from dataclasses import replace
from pathlib import Path

import pytest

from skincare.evaluation import metrics
from skincare.labels import skincare_labels
from skincare.reporting import report_data, report_pages
from tests.browser import CONTRAST, UNNAMED
from tests.helpers import prediction

CATEGORIES = skincare_labels().names

HOSTILE = '"></code><script>document.title="run"</script><img src=x onerror="document.title=\'run\'"><b class=injected>'
PIXEL = "data:image/gif;base64,R0lGODlhAQABAIAAAAAAAP///yH5BAEAAAAALAAAAAABAAEAAAIBRAA7"
ENVIRONMENT = {"seconds": 3.0, "machine": HOSTILE, "command": f"python {HOSTILE}", "git_commit": "abc", "python": "3",
               "started": "2026-01-02T03:04:05", "versions": {"torch": HOSTILE}}  # fmt: skip


def answered(i):
    """Return image i: every third is wrong; hostile output before training, every second confident after."""
    truth = CATEGORIES[i % 14]
    before = prediction(f"{i}_1", truth, None, text=HOSTILE, file=f"clean_dataset/images/{HOSTILE}_{i}_1.jpg")
    after = prediction(f"{i}_1", truth, truth if i % 3 else CATEGORIES[(i + 1) % 14])
    confidence = 0.95 if i % 2 else 0.4
    return report_data.TestImage(f"{i}_1", truth, before, after, PIXEL, truth, confidence, confidence)


def page_of(n, thumbnail=PIXEL):
    images = [answered(i) for i in range(n)]
    if thumbnail != PIXEL:
        images = [replace(one, thumbnail=thumbnail) for one in images]
    results = {"model": HOSTILE, "n_parameters": 9, "prompt": HOSTILE, "run": "sample", "recipe": HOSTILE,
               "n_trainable": 3, "trainable_modules": [HOSTILE], "best_epoch": 1, "n_epochs": 1,
               "stop_reason": "patience", "recipe_settings": {HOSTILE: HOSTILE}}  # fmt: skip
    stage = {"results": results, "headline": HOSTILE, "config": {"min_tokens": 36, "max_tokens": 36, "model": HOSTILE},
             **ENVIRONMENT}  # fmt: skip
    before, after = ([getattr(one, when) for one in images] for when in ("before", "after"))
    confidence = {"n_test": n, "n_val": n, "accuracy": 0.5, "temperature": 1.0, "ece_before": 0.1, "ece": 0.1,
                  "brier_before": 0.3, "brier": 0.3, "aurc": 0.2, "wanted": []}  # fmt: skip
    return report_pages.render(
        report_data.ReportData(
            stages={"zero_shot": stage, "finetune": stage}, before=metrics.score(before, skincare_labels()),
            after=metrics.score(after, skincare_labels()), labels=skincare_labels(),
            comparison={}, confidence=confidence, history=[], images=images, plots={},
            manifests={HOSTILE: {"model": {"source": HOSTILE}, "predictions": {}}},
        ),
        Path(),
    ).html  # fmt: skip


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    path = tmp_path_factory.mktemp("report") / "report.html"
    path.write_text(page_of(84), encoding="utf-8")
    return path


@pytest.fixture
def page(tab, file):
    """The page, reloaded on a desktop's screen."""
    tab.trouble.clear()
    tab.set_viewport_size({"width": 1280, "height": 900})
    tab.emulate_media(media="screen")
    tab.goto("about:blank")
    tab.goto(file.as_uri())
    return tab


def shown(page):
    return page.locator(".gallery > li:visible").count()


def test_page_loads_without_errors_or_requests(page, file):
    assert {line for line in page.trouble if not line.startswith("data:")} == {file.as_uri()}
    assert shown(page) == 84


@pytest.mark.parametrize(
    ("values", "n"),
    [
        ({"truth": "Mask"}, 6),
        ({"result": "wrong"}, 28),
        ({"status": "exact"}, 84),
        ({"confidence": "under 50 %"}, 42),
        ({"before": "Unknown"}, 84),
        ({"result": "wrong", "confidence": "90 % or more"}, 14),
        ({"result": "right", "truth": "Mask", "after": "Mask", "confidence": "90 % or more"}, 4),
        ({"truth": "Mask", "after": "Oil"}, 0),
    ],
)
def test_filters_work_and_compose(page, values, n):
    for name, value in values.items():
        page.select_option(f"select[name={name}]", value)
    assert shown(page) == n
    assert page.inner_text("#shown") == f"{n} of 84 images"
    page.click("text=Show all")
    assert shown(page) == 84


def test_a_matrix_cell_leads_to_its_images(page):
    cell = page.locator('.matrix a[data-truth="Mask"][data-answer="Mask"][data-when="after"]')
    n = int(cell.inner_text())
    cell.click()
    assert shown(page) == n == 4
    assert page.url.endswith("#gallery")
    assert page.locator("#gallery h2").is_visible()


def test_everything_can_be_reached_and_done_by_keyboard(page):
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "main"
    page.focus('.matrix a[data-truth="Mask"][data-answer="Mask"][data-when="after"]')
    page.keyboard.press("Enter")
    assert shown(page) == 4
    for name in ("result", "truth"):
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.name") == name
    assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"


def test_controls_and_tables_have_names(page):
    assert page.evaluate(UNNAMED) == 0
    assert page.locator("th:not([scope])").count() == 0
    levels = page.evaluate("[...document.querySelectorAll('h1,h2,h3')].map((one) => +one.localName[1])")
    assert levels[0] == 1
    assert all(after <= before + 1 for before, after in itertools.pairwise(levels))


def test_a_hostile_answer_stays_text(page):
    assert page.title() != "run"
    assert page.locator(".injected").count() == 0
    assert HOSTILE in page.locator(".gallery li").first.inner_text()


def test_it_fits_a_phone(page):
    page.set_viewport_size({"width": 390, "height": 844})
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    with_long_name = """() => {
      const widths = [...document.querySelectorAll("main p, main li, h1, h2, h3, figcaption, header p")].map((one) => {
        const name = one.appendChild(document.createTextNode("models/finetuned_" + "x".repeat(200)));
        const width = document.documentElement.scrollWidth;
        name.remove();
        return width;
      });
      return Math.max(...widths);
    }"""
    assert page.evaluate(with_long_name) <= 390


def test_print_leaves_out_what_paper_cannot_do(page):
    page.emulate_media(media="print")
    assert not page.locator(".filters").is_visible()
    assert not page.locator("nav").is_visible()
    assert shown(page) == 84


def test_small_text_has_contrast(page):
    assert page.evaluate(CONTRAST) == []


def test_without_javascript_everything_is_there(browser, file):
    context = browser.new_context(java_script_enabled=False)
    opened = context.new_page()
    opened.goto(file.as_uri())
    assert opened.locator(".gallery > li").count() == 84
    assert opened.locator(".gallery > li").last.is_visible()
    assert not opened.locator(".filters").is_visible()
    context.close()


def test_six_hundred_thumbnails_stay_below_ten_megabytes():
    # As large as the thumbnail of a noisy photo becomes.
    assert len(page_of(600, PIXEL + "A" * 14_000).encode()) < 10_000_000
