"""scrape.py against the sample shop: every product has a status, nothing is fetched twice, failures are retried."""

import dataclasses
import json
import shutil
import sqlite3
from collections import Counter
from contextlib import closing

import pytest

import scrape
from skincare import file_formats, images
from skincare.collecting.scrape_state import ScrapeState, ScrapeStateReader
from skincare.errors import MissingInputError, StageError
from skincare.paths import Layout
from skincare.sample import shop
from skincare.sample.products import ORIGIN, sample_products
from skincare.tables import CATALOGUE, FAILURES, IMAGES, CatalogueRow

WANTED = ("fine", "moved", "no_script", "unavailable_twice", "gone", "not_found_with_status_200", "challenge",
          "moved_to_the_start_page", "no_images", "only_broken_images")  # fmt: skip


@pytest.fixture(scope="module")
def products():
    """Return one product of each behaviour and some with invalid images."""
    all_products = sample_products(seed=0)
    of_behaviour = {one.behaviour: one for one in all_products}
    chosen = {of_behaviour[behaviour].product_id for behaviour in WANTED}
    for kind in ("webp", "png", "html", "gone", "truncated", "unavailable_twice"):
        chosen.add(next(one for one in all_products if any(p.kind == kind for p in one.images)).product_id)
    by_id = {one.product_id: one for one in all_products}
    for product_id in (waiting := list(chosen)):
        # An image that repeats another product's image requires that product.
        originals = {image.copy_of[0] for image in by_id[product_id].images if image.copy_of}
        waiting += originals - chosen
        chosen |= originals
    return [one for one in all_products if one.product_id in chosen]


def layout_with(products, root):
    found = Layout(root)
    CATALOGUE.write(found.catalogue, [CatalogueRow(one.name, ORIGIN + one.path, one.category) for one in products])
    return found


@pytest.fixture
def layout(tmp_path, products):
    return layout_with(products, tmp_path)


def run(layout, url, **config):
    return scrape.run(scrape.Config(root=layout.root, shop_url=url, delay_s=0, **config), layout)


@pytest.fixture(scope="module")
def url(products):
    with shop.serve(products) as opened:
        yield opened


@pytest.fixture(scope="module")
def scraped(tmp_path_factory, products, url):
    """A finished scrape, only read by the tests, and its summary."""
    found = layout_with(products, tmp_path_factory.mktemp("scraped"))
    return found, run(found, url)


@pytest.fixture
def finished(tmp_path, scraped):
    """A copy of the finished scrape, to be changed by a test."""
    return Layout(shutil.copytree(scraped[0].root, tmp_path / "finished"))


def test_every_product_and_image_has_the_expected_status(scraped, products):
    layout, summary = scraped
    truth = shop.truth(products)
    saved, failures = IMAGES.read(layout.images_table), FAILURES.read(layout.failures_table)
    status_of = {row.product_id: row.reason for row in failures if not row.image_url}
    assert {i: status_of.get(i, "scraped") for i in truth["products"]} == {
        i: one["ends"] for i, one in truth["products"].items()
    }
    missing = {i for i, one in truth["images"].items() if one["ends"] in ("not_an_image", "http_404")}
    assert {row.image_id for row in saved} == truth["images"].keys() - missing
    assert Counter(row.reason for row in failures if row.image_url) == Counter(
        truth["images"][i]["ends"] for i in missing
    )
    assert summary.counts["scraped"] + summary.counts["failed"] == len(products)
    assert json.dumps(summary.results)


def test_every_row_is_a_jpeg_on_disk_with_its_size(scraped):
    layout, _ = scraped
    rows = IMAGES.read(layout.images_table)
    assert {layout.root / row.file for row in rows} == set(layout.product_images.iterdir())
    for row in rows:
        content = (layout.root / row.file).read_bytes()
        assert file_formats.sniff_format(content) == "JPEG"
        assert len(content) == row.n_bytes
        assert images.displayed_size(content) == (row.width, row.height)


def test_a_second_run_fetches_nothing_and_writes_the_same_bytes(finished, url):
    first = finished.images_table.read_bytes(), finished.failures_table.read_bytes()
    summary = run(finished, url)
    assert summary.results["n_requests"] == 0
    assert (finished.images_table.read_bytes(), finished.failures_table.read_bytes()) == first


def test_the_state_records_every_fetch(scraped, products):
    layout, _ = scraped
    of_behaviour = {one.behaviour: one.product_id for one in products}
    with ScrapeStateReader(layout.scrape_state) as state:
        query = (
            "SELECT product_id, status, reason, http_status, attempts, seconds > 0, changed_at > '2026' FROM products"
        )
        known = {row[0]: row[1:] for row in state.rows(query)}
        n_unknown = next(state.rows("SELECT COUNT(*) FROM images WHERE attempts < 1 OR seconds <= 0"))[0]
    assert known[of_behaviour["fine"]] == ("scraped", "", 200, 1, 1, 1)
    assert known[of_behaviour["unavailable_twice"]] == ("scraped", "", 200, 3, 1, 1)
    assert known[of_behaviour["gone"]] == ("failed", "http_404", 404, 1, 1, 1)
    assert known[of_behaviour["only_broken_images"]] == ("failed", "no_image_saved", 200, 1, 1, 1)
    assert n_unknown == 0


def test_retry_failed_fetches_only_failures(finished, products):
    layout = finished
    n_saved = len(IMAGES.read(layout.images_table))
    repaired = [dataclasses.replace(one, behaviour="fine") if one.behaviour == "gone" else one for one in products]
    with shop.serve(repaired) as url:
        run(layout, url)
        assert len(IMAGES.read(layout.images_table)) == n_saved, "failures stay until they are retried"
        run(layout, url, retry_failed=True)
    gone = next(one for one in products if one.behaviour == "gone")
    assert gone.product_id in {row.product_id for row in IMAGES.read(layout.images_table)}
    assert gone.product_id not in {row.product_id for row in FAILURES.read(layout.failures_table)}


def test_a_deleted_image_is_fetched_again(finished, url):
    first = finished.images_table.read_bytes()
    path = finished.root / IMAGES.read(finished.images_table)[0].file
    content = path.read_bytes()
    path.unlink()
    assert run(finished, url).results["n_requests"] >= 1
    assert path.read_bytes() == content
    assert finished.images_table.read_bytes() == first


def test_limit_bounds_the_products_of_a_run(layout, products):
    with shop.serve(products) as url:
        assert run(layout, url, limit=3).counts["not_tried"] == len(products) - 3
        assert run(layout, url).counts["not_tried"] == 0


def test_a_missing_catalogue_names_its_source(tmp_path):
    with pytest.raises(MissingInputError, match="Skincare Products Clean Dataset") as error:
        scrape.run(scrape.Config(root=tmp_path), Layout(tmp_path))
    assert "make sample" in str(error.value)


def test_a_catalogue_without_a_usable_product_keeps_the_tables_of_an_earlier_run(tmp_path, monkeypatch, caplog):
    layout = Layout(tmp_path)
    layout.catalogue.parent.mkdir()
    layout.catalogue.write_text("product_name,product_url,product_type\n" + "a,junk,Serum\n" * 5)
    layout.images_table.write_text("of an earlier run")
    monkeypatch.setattr(scrape, "_MAX_LOGGED", 2)
    with pytest.raises(StageError, match="none of 5 rows is a usable product"):
        scrape.run(scrape.Config(root=tmp_path), layout)
    assert layout.images_table.read_text() == "of an earlier run"
    assert [one.getMessage() for one in caplog.records if "catalogue row" in one.getMessage()] == [
        f"catalogue row {row}: bad_url: no web address: 'junk'" for row in (1, 2)
    ]
    assert "... and more, of 5 problems: bad_url 5" in caplog.text


@pytest.mark.parametrize(
    "config",
    [{"workers": 0}, {"delay_s": -1}, {"contact": "line\nbreak"}, {"shop_url": "no url"}, {"shop_url": "ftp://x"}],
    ids=str,
)
def test_an_invalid_option_is_an_error(layout, config):
    with pytest.raises(StageError):
        scrape.run(scrape.Config(root=layout.root, **config), layout)


def test_a_second_run_on_the_same_folder_is_an_error(layout):
    with ScrapeState(layout.scrape_state), pytest.raises(StageError, match=r"another scrape\.py is running"):
        scrape.run(scrape.Config(root=layout.root), layout)


def test_missing_columns_are_added_to_the_state_of_an_earlier_version(layout, products):
    layout.scrape_state.parent.mkdir(exist_ok=True)
    with closing(sqlite3.connect(layout.scrape_state)) as old:
        old.execute("CREATE TABLE products (product_id TEXT PRIMARY KEY, status TEXT NOT NULL DEFAULT 'pending')")
        old.execute("INSERT INTO products VALUES (?, 'failed')", (products[0].product_id,))
        old.commit()
    with shop.serve(products) as url:
        assert run(layout, url, limit=1).counts["not_tried"] == len(products) - 2
