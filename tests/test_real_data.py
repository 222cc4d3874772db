"""The real catalogue over HTTP and real photos through cleaning and splitting; skipped where the material is absent."""

import csv
import hashlib
from collections import Counter

import pytest

import build_dataset
import clean
import sample_shop
import scrape
from skincare.catalogue import read_products
from skincare.labels import skincare_labels
from skincare.paths import SPLITS, Layout
from skincare.sample import shop
from skincare.tables import CATALOGUE, CLEAN, FAILURES, IMAGES, REJECTED, CatalogueRow, ImageRow

CATEGORIES = skincare_labels().names

pytestmark = pytest.mark.slow


def every_fourth(source, target):
    """Write a quarter of each category of a catalogue; the shop needs two minutes for all 1,126 products."""
    with source.open(encoding="utf-8", newline="") as file:
        header, *rows = csv.reader(file)
    with target.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([header, *sorted(rows, key=lambda row: row[2])[::4]])
    return target


def test_the_real_catalogue_is_scraped_cleaned_and_split(real_data, tmp_path):
    layout = Layout(tmp_path)
    whole = real_data / "skincare_products_clean.csv"
    assert len(read_products(whole, skincare_labels()).products) == 1126
    catalogue = every_fourth(whole, tmp_path / "catalogue.csv")
    with shop.serve(sample_shop._catalogued(catalogue)) as url:
        summary = scrape.run(scrape.Config(root=tmp_path, catalogue=catalogue, shop_url=url, delay_s=0), layout)
    assert summary.counts["scraped"] > 280
    assert (summary.counts["failed"], summary.counts["not_tried"]) == (0, 0)
    assert FAILURES.read(layout.failures_table) == []
    cleaned = clean.run(clean.Config(root=tmp_path, catalogue=catalogue), layout)
    assert sum(cleaned.counts.values()) == len(IMAGES.read(layout.images_table))
    # Drawn packs of different products may be equal; nothing else is wrong with any of them.
    assert cleaned.counts.keys() <= {
        "kept",
        "near_duplicate",
        "duplicate_bytes",
        "duplicate_pixels",
        "category_conflict",
    }
    built = build_dataset.run(build_dataset.Config(root=tmp_path, catalogue=catalogue), layout)
    assert built.results["leakage"]["same_group"] == 0
    for split in SPLITS:
        assert {name for name, (n, _) in built.results["images_and_products"][split].items() if n} == set(CATEGORIES)


def test_real_photos_go_through_cleaning_and_splitting(real_data, tmp_path):
    layout = Layout(tmp_path)
    layout.product_images.mkdir()
    products, rows = {}, []
    for photo in csv.DictReader((real_data / "photos.csv").open(encoding="utf-8")):
        product_id = products.setdefault(photo["product_key"], (str(10_000_000 + len(products)), photo["category"]))[0]
        n = sum(row.product_id == product_id for row in rows) + 1
        content = (real_data / photo["file"]).read_bytes()
        file = layout.product_images / f"photo_{product_id}_{n}.jpg"
        file.write_bytes(content)
        digest = hashlib.sha256(content).hexdigest()
        url = f"https://photos.example/p/{product_id}.html"
        rows.append(
            ImageRow(url, f"{product_id}_{n}", product_id, layout.relative(file), "", 0, 0, len(content), digest)
        )
    IMAGES.write(layout.images_table, rows)
    CATALOGUE.write(layout.catalogue, [
        CatalogueRow(f"Photo {key}", f"https://photos.example/p/{product_id}.html", category)
        for key, (product_id, category) in products.items()
    ])  # fmt: skip
    clean.run(clean.Config(root=tmp_path), layout)
    reasons = Counter(row.reason for row in REJECTED.read(layout.rejected_table))
    assert reasons.keys() <= {"too_small", "near_duplicate", "duplicate_bytes", "duplicate_pixels", "category_conflict"}
    assert len(CLEAN.read(layout.clean_table)) + reasons.total() == len(rows) == 192
    built = build_dataset.run(build_dataset.Config(root=tmp_path), layout)
    assert built.results["leakage"]["same_group"] == 0
