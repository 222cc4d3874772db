"""The page of the service in a real browser: photos in, answers out, by mouse, paste and keyboard; nothing foreign."""

import io
import itertools

import pytest

from tests.browser import CONTRAST, UNNAMED
from tests.fake_predictor import HOSTILE
from tests.helpers import noise_image
from tests.serving_fakes import serving


def until(page, holds):
    """Wait for a condition; the page's policy forbids what playwright's wait_for_function does."""
    for _ in range(400):
        if page.evaluate(holds):
            return
        page.wait_for_timeout(25)
    raise AssertionError(holds)


@pytest.fixture(scope="module")
def running():
    with serving(target="product") as started:
        yield started


@pytest.fixture
def page(tab, running):
    tab.trouble.clear()
    tab.set_viewport_size({"width": 1280, "height": 900})
    tab.goto(running.url)
    until(tab, "document.getElementById('state').textContent.startsWith('Ready')")
    return tab


def photo(name):
    buffer = io.BytesIO()
    noise_image(64, 48).save(buffer, "PNG")
    return {"name": name, "mimeType": "image/png", "buffer": buffer.getvalue()}


def choose(page, *names):
    before = page.locator("#answers > li").count()
    page.set_input_files("#files", [photo(name) for name in names])
    until(page, f"document.querySelectorAll('#answers > li').length >= {before + len(names)}")


def test_it_asks_only_the_service_and_reports_no_error(page, running):
    choose(page, "a.png")
    assert all(one.startswith((running.url, "blob:", "data:")) for one in page.trouble), page.trouble


def test_the_fields_of_a_product_are_shown_as_text(page):
    choose(page, "product.png")
    fields = page.locator("#answers > li").first.locator(".fields")
    rows = [row.split("\t") for row in fields.locator("tbody tr").all_inner_texts()]
    assert rows == [["brand", HOSTILE, "75.0 %"], ["ingredients", "aqua, parfum", ""], ["size", "uncertain", "25.0 %"]]
    page.set_viewport_size({"width": 390, "height": 800})
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    choose(page, "a.png")
    assert page.locator("#answers > li").first.locator(".fields").is_hidden()


def test_a_chosen_photo_is_answered_with_its_evidence(page):
    choose(page, "a.png")
    answer = page.locator("#answers > li").first
    assert answer.locator(".category").inner_text() == "Serum"
    assert "Leave-on care" in answer.locator(".summary").inner_text()
    assert answer.locator(".ranking li").all_inner_texts()[0].split("\n") == ["Serum", "90.0 %"]
    assert answer.locator("progress").first.get_attribute("aria-label") == "Serum: 90.0 %"
    assert answer.locator("polygon").count() == 1
    assert page.inner_text("#status") == "Serum, 90.0 %."


def test_text_of_a_photo_stays_text(page):
    choose(page, "a.png")
    assert page.locator(".reading li").first.inner_text() == HOSTILE
    assert page.title() != "1"


def test_boxes_and_overlays_can_be_switched_off(page):
    choose(page, "a.png")
    answer = page.locator("#answers > li").first
    answer.locator(".toggle input").uncheck()
    assert not answer.locator(".boxes").is_visible()
    choose(page, "overlay.png")
    answer = page.locator("#answers > li").first
    assert answer.locator("figcaption").inner_text() == "Blue speaks for Serum, orange for Mask."
    assert answer.locator(".photo").get_attribute("src").startswith("data:")
    answer.locator(".toggle input").uncheck()
    assert answer.locator(".photo").get_attribute("src").startswith("blob:")


def test_an_abstention_and_a_failure_are_explained(page):
    choose(page, "unknown.png")
    assert page.inner_text("#status") == "No category. The most likely category is below the confidence threshold."
    choose(page, "raise.png")
    assert "failed on this photo" in page.inner_text("#status")


def test_the_answers_before_a_refused_photo_stay(page):
    refusals = iter([None, (413, "body_too_large"), None, None, (503, "overloaded"), None])

    def reply(route):
        refusal = next(refusals)
        if refusal is None:
            route.continue_()
        else:
            route.fulfill(status=refusal[0], json={"error": refusal[1], "detail": ""})

    page.route("**/predict?*", reply)
    before = page.locator("#answers > li").count()
    page.set_input_files("#files", [photo(name) for name in ("a.png", "b.png", "c.png")])
    until(page, "document.getElementById('status').textContent.includes('2 of 3')")
    assert page.inner_text("#status") == "2 of 3 photos recognised. b.png: The photo is too large."
    page.set_input_files("#files", [photo(name) for name in ("a.png", "b.png", "c.png")])
    until(page, "document.getElementById('status').textContent.includes('1 of 3')")
    assert page.inner_text("#status") == "1 of 3 photos recognised. The service is busy."
    assert page.locator("#answers > li").count() == before + 3
    page.unroute("**/predict?*")


def test_a_pasted_and_a_dropped_photo_are_answered(page):
    for event, field in (("paste", "clipboardData"), ("drop", "dataTransfer")):
        before = page.locator("#answers > li").count()
        page.evaluate(
            """([event, field]) => {
              const data = new DataTransfer();
              data.items.add(new File([new Uint8Array([1, 2])], "pasted.png", { type: "image/png" }));
              const made = event === "paste" ? new ClipboardEvent(event, { [field]: data, bubbles: true })
                : new DragEvent(event, { [field]: data, bubbles: true, cancelable: true });
              document.body.dispatchEvent(made);
            }""",
            [event, field],
        )
        until(page, f"document.querySelectorAll('#answers > li').length > {before}")


def test_the_camera_takes_a_photo(page):
    page.evaluate(
        """() => {
          const canvas = document.createElement("canvas");
          canvas.getContext("2d").fillRect(0, 0, 9, 9);
          navigator.mediaDevices.getUserMedia = async () => canvas.captureStream(30);
          setInterval(() => canvas.getContext("2d").fillRect(0, 0, 9, 9), 20);
        }"""
    )
    page.click("#camera")
    until(page, "document.activeElement.id === 'shoot' && document.getElementById('video').videoWidth > 0")
    before = page.locator("#answers > li").count()
    page.keyboard.press("Enter")
    until(page, f"document.querySelectorAll('#answers > li').length > {before}")
    assert not page.locator("#viewfinder").is_visible()
    assert "camera.jpg" in page.locator("figcaption").first.inner_text()


def test_a_camera_that_is_refused_is_explained(page):
    page.evaluate("() => { navigator.mediaDevices.getUserMedia = async () => { throw new Error('refused'); }; }")
    page.click("#camera")
    until(page, "document.getElementById('status').textContent.startsWith('The camera cannot be used')")


def test_everything_can_be_reached_by_keyboard(page):
    reached = []
    for _ in range(5):
        page.keyboard.press("Tab")
        reached.append(page.evaluate("document.activeElement.id || document.activeElement.className"))
    assert reached[:3] == ["skip", "files", "camera"]
    assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") != "none"


def test_controls_have_names_and_the_status_is_announced(page):
    choose(page, "a.png")
    assert page.evaluate(UNNAMED) == 0
    assert page.locator("input:not([type=file])").evaluate_all("all => all.every((one) => one.labels.length)")
    assert page.locator("#status[aria-live=polite]").count() == 1
    levels = page.evaluate("[...document.querySelectorAll('h1,h2,h3,h4')].map((one) => +one.localName[1])")
    assert all(after <= before + 1 for before, after in itertools.pairwise(levels))


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_has_contrast_and_fits_a_phone(page, scheme):
    page.emulate_media(color_scheme=scheme)
    page.set_viewport_size({"width": 390, "height": 844})
    choose(page, "a.png", "unknown.png")
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    assert page.evaluate(CONTRAST) == []
    heights = page.locator("button:visible, label.button").evaluate_all(
        "all => all.map((one) => one.getBoundingClientRect().height)"
    )
    assert min(heights) >= 44
    page.emulate_media(color_scheme=None)


def test_the_key_is_sent_and_a_missing_one_is_explained(tab):
    with serving(api_key="secret") as running:
        tab.goto(running.url)
        tab.set_input_files("#files", [photo("a.png")])
        until(tab, "document.getElementById('status').textContent.includes('API key')")
        assert tab.locator("#key").is_visible()
        tab.fill("#key", "secret")
        choose(tab, "a.png")


def test_the_documentation_shows_every_operation(page, running):
    page.goto(f"{running.url}/docs")
    page.wait_for_selector("#operations table")
    assert "POST /predict" in page.inner_text("#operations")
    assert page.evaluate("document.documentElement.scrollWidth") <= 1280
