"""The benchmark of page reading: counts as published, and a folder read from end to end."""

import csv
import gzip
import json
import subprocess
import sys

import pytest
from benchmarks.page_reading import Score, Tally, figures, rate

from skincare.collecting.metadata import Fact
from skincare.collecting.pages import ProductPage
from skincare.paths import REPOSITORY
from tests.shop_pages import STRUCTURED, URL


@pytest.mark.parametrize(
    ("read", "stated", "counts"),
    [("a", {"a", "b"}, (1, 0, 0)), ("c", {"a"}, (0, 1, 1)), (None, {"a"}, (0, 0, 1)), ("a", set(), (0, 1, 0)),
     (None, set(), (0, 0, 0))],
)  # fmt: skip
def test_a_page_counts_as_published(read, stated, counts):
    score = Score()
    assert score.add(read, stated) == (counts in ((1, 0, 0), (0, 0, 0)))
    assert (score.correct, score.wrong, score.missed) == counts


def test_f1_is_the_harmonic_mean():
    assert Score(correct=3, wrong=1, missed=2).figures() == {"precision": 0.75, "recall": 0.6, "f1": 0.667}


@pytest.mark.parametrize(("currency", "right"), [("CLP", 1), (None, 1), ("EUR", 0)])
def test_whole_pesos_are_right_unless_the_count_is_strict(currency, right):
    facts = {"price": Fact("24990.00", "page")} | ({"currency": Fact(currency, "page")} if currency else {})
    tally = Tally()
    rate(
        tally,
        {"price": "24.99", "brand": ""},
        ProductPage("product", "Rose", ("https://a.example/a.jpg",), "page", facts),
    )
    tally.seconds.append(0.01)
    assert (tally.price.correct, tally.price_strict.correct) == (right, 0)
    assert figures(tally)["read_with_image"] == 1


def test_a_folder_of_pages_is_read_and_written(tmp_path):
    (tmp_path / "pages").mkdir()
    (tmp_path / "pages" / "a.html.gz").write_bytes(gzip.compress(STRUCTURED["microdata"].html.encode()))
    (tmp_path / "pages" / "b.html").write_text("<h1>Page not found</h1>", encoding="utf-8")
    rows = [("pages/a.html.gz", URL, "15", "ACME"), ("pages/b.html", URL, "", "")]
    with (tmp_path / "pages.csv").open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([("file", "url", "price", "brand"), *rows])
    out = tmp_path / "out.json"
    command = [sys.executable, "benchmarks/page_reading.py", "--pages", str(tmp_path), "--out", str(out), "--show"]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert "2 pages: 50.0%" in done.stderr
    assert "other, no image" in done.stderr
    pages = json.loads(out.read_text(encoding="utf-8"))["pages"]
    assert (pages["price_strict"]["f1"], pages["brand"]["f1"], pages["kinds"]) == (1.0, 1.0, {"other": 1, "product": 1})
