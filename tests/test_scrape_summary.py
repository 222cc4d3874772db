"""The summary says what the state says: failures by host and reason, coverage, what to retry, time, throughput."""

import json

import pytest

import scrape_summary
from skincare import stage
from skincare.catalogue import Product
from skincare.collecting.fetch_record import FetchRecord
from skincare.collecting.scrape_log import failure_groups, host_times, is_worth_a_retry, throughput
from skincare.collecting.scrape_state import Failure, ListedImage, SavedImage, ScrapeState
from skincare.errors import MissingInputError
from skincare.paths import Layout

SAVED = SavedImage("product_images/a.jpg", 1, 1, 1, "0")


@pytest.fixture
def layout(tmp_path) -> Layout:
    """Six products of two hosts: two scraped, three failed, one not tried; two images failed."""
    found = Layout(tmp_path)
    products = [
        Product(str(i), f"https://{'ab'[i % 2]}.example/{i}.html", "x", "x", ("Oil", "Mask")[i % 2]) for i in range(6)
    ]
    with ScrapeState(found.scrape_state) as state:
        state.set_catalogue(products)
        for i in ("0", "1"):
            images = [ListedImage(f"https://cdn.example/{i}/{n}.jpg") for n in range(2)]
            state.list_images(i, images, "", FetchRecord(200, 1, 0.5))
            state.save_image(i, 1, SAVED, FetchRecord(200, 2, 0.1))
            state.fail_image(i, 2, Failure("http_503", "", FetchRecord(503, 5, 2.0)))
            state.finish_product(i)
        state.fail_product("2", Failure("http_404", "", FetchRecord(404, 1, 0.2)))
        state.fail_product("4", Failure("http_404", "", FetchRecord(404, 1, 0.2)))
        state.fail_product("3", Failure("timeout", "", FetchRecord(None, 5, 150.0)))
    return found


def test_failures_are_grouped_with_examples_and_the_most_frequent_comes_first(layout):
    with ScrapeState(layout.scrape_state) as state:
        groups = [(g.what, g.host, g.reason, g.n, g.is_worth_a_retry, g.examples) for g in failure_groups(state)]
    assert groups == [
        ("image", "cdn.example", "http_503", 2, True, ("https://cdn.example/0/1.jpg", "https://cdn.example/1/1.jpg")),
        ("product", "a.example", "http_404", 2, False, ("https://a.example/2.html", "https://a.example/4.html")),
        ("product", "b.example", "timeout", 1, True, ("https://b.example/3.html",)),
    ]


def test_the_time_of_each_host_adds_up(layout):
    with ScrapeState(layout.scrape_state) as state:
        times = {one.host: (one.n_fetches, one.n_tries, one.seconds) for one in host_times(state)}
    assert times == {"b.example": (2, 6, 150.5), "cdn.example": (4, 14, 4.2), "a.example": (3, 3, 0.9)}
    assert list(times) == ["b.example", "cdn.example", "a.example"]


def test_the_pause_between_two_runs_is_no_active_time(layout):
    with ScrapeState(layout.scrape_state) as state:
        for i, moment in enumerate(("10:00:00", "10:00:01", "10:00:03", "18:00:00", "18:00:01")):
            with state.transaction() as connection:
                values = (f"2026-11-24T{moment}.000+00:00", str(i))
                connection.execute("UPDATE products SET changed_at = ? WHERE product_id = ?", values)
                connection.execute("UPDATE images SET attempts = 0")
        speed = throughput(state)
    assert (speed.n_fetches, speed.active_s, speed.fetches_per_s) == (5, 4.0, 1.25)
    assert speed.progress[-1] == (4.0, 5)


@pytest.mark.parametrize(
    ("reason", "is_worth_it"),
    [("http_503", True), ("http_429", True), ("timeout", True), ("http_404", False), ("http_410", False),
     ("redirected_away", False), ("robots_disallowed", False), ("private_address", False), ("too_large", False)],
)  # fmt: skip
def test_passing_trouble_is_worth_a_retry(reason, is_worth_it):
    assert is_worth_a_retry(reason) == is_worth_it


def test_the_stage_writes_text_plot_and_figures_of_a_run_that_is_under_way(layout, capsys):
    with ScrapeState(layout.scrape_state):
        code = stage.execute("scrape_summary", scrape_summary.Config(root=layout.root), layout, scrape_summary.run)
    text = capsys.readouterr().out
    assert code == 0
    assert f"`python src/scrape.py --root {layout.root}` with the other options" in text
    assert "resumes with the 1 remaining products" in text
    assert "--retry-failed` may resolve 3 failures (http_503 2, timeout 1)" in text
    assert "2 failures are permanent" in text
    results = json.loads(layout.summary("scrape_summary").read_text())
    assert results["counts"] == {"scraped": 2, "failed": 3, "not_tried": 1}
    assert results["results"]["coverage_by_category"] == {"Mask": [1, 3], "Oil": [1, 3]}
    assert layout.plot("scrape_summary").read_bytes().startswith(b"\x89PNG")


def test_addresses_from_outside_cannot_control_the_terminal():
    assert scrape_summary._plain("a\x1b[31m\nb") == "a [31m b"


def test_without_a_state_the_stage_is_named(tmp_path):
    with pytest.raises(MissingInputError, match=r"scrape\.py"):
        scrape_summary.run(scrape_summary.Config(root=tmp_path), Layout(tmp_path))
