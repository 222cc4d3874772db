"""Cached metrics equal computed ones; metrics of changed files are recomputed."""

import dataclasses
import os
import sqlite3

import numpy as np
import pytest

from skincare import worker_pool
from skincare.cleaning import batch_inspection, inspection
from skincare.cleaning.metrics_cache import MetricsCache
from skincare.paths import Layout
from skincare.tables import IMAGES
from tests.dataset_helpers import jpeg, pack, write_images

IMAGE_BYTES = {"10000001_1": jpeg(pack(1)), "10000001_2": jpeg(pack(2)), "10000001_3": b"<html>"}


@pytest.fixture
def layout(tmp_path):
    found = Layout(tmp_path)
    write_images(found, IMAGE_BYTES)
    _age(found)
    return found


def _age(layout):
    """Set an old modification time, since recently modified files are not cached."""
    for path in layout.product_images.iterdir():
        os.utime(path, (1_700_000_000, 1_700_000_000))


def _inspected(layout, monkeypatch, **options):
    """Return the inspections and the names of the files that were inspected."""
    inspected = []

    def inspect_here(_engine, inspect_file, paths, _lost):
        for path in paths:
            inspected.append(path.name)
            yield inspect_file(path)

    with monkeypatch.context() as patched, MetricsCache(layout.metrics_cache) as store:
        patched.setattr(worker_pool, "map_ordered", inspect_here)
        found = batch_inspection.inspect_all(IMAGES.read(layout.images_table), layout, store, **options)
    return found, sorted(inspected)


def test_metrics_of_an_unchanged_file_come_from_the_cache(layout, monkeypatch):
    first, inspected = _inspected(layout, monkeypatch)
    assert len(inspected) == 3
    again, inspected = _inspected(layout, monkeypatch)
    assert inspected == []
    assert again == first
    assert _inspected(layout, monkeypatch, is_remeasured=True) == (first, sorted(path.name for path in _files(layout)))


def _files(layout):
    return list(layout.product_images.iterdir())


def test_a_changed_file_is_inspected_again(layout, monkeypatch):
    _inspected(layout, monkeypatch)
    path = next(layout.product_images.glob("*_2.jpg"))
    path.write_bytes(jpeg(pack(5)))
    found, inspected = _inspected(layout, monkeypatch)
    assert inspected == [path.name]
    assert found[1].metrics == inspection.measure(jpeg(pack(5)))[0]


def test_a_recently_modified_file_is_inspected_again(layout, monkeypatch):
    path = next(layout.product_images.glob("*_2.jpg"))
    os.utime(path)
    _inspected(layout, monkeypatch)
    assert _inspected(layout, monkeypatch)[1] == [path.name]


def test_changed_code_or_libraries_invalidate_the_cache(layout, monkeypatch):
    _inspected(layout, monkeypatch)
    monkeypatch.setattr("skincare.cleaning.metrics_cache.code_version", lambda *_: "other")
    assert len(_inspected(layout, monkeypatch)[1]) == 3


@pytest.mark.parametrize("damage", [b"not a database", b""])
def test_a_damaged_cache_is_replaced(layout, monkeypatch, damage):
    first, _ = _inspected(layout, monkeypatch)
    layout.metrics_cache.write_bytes(damage)
    assert _inspected(layout, monkeypatch)[0] == first


def test_files_no_longer_listed_are_removed_from_the_cache(layout, monkeypatch):
    _inspected(layout, monkeypatch)
    write_images(layout, {"10000001_1": IMAGE_BYTES["10000001_1"]})
    _age(layout)
    _inspected(layout, monkeypatch)
    with sqlite3.connect(layout.metrics_cache) as database:
        assert database.execute("select count(*) from measures").fetchone() == (1,)


def test_cached_thumbnails_equal_the_originals(layout):
    metrics, thumbnails = inspection.measure(IMAGE_BYTES["10000001_1"])
    row = IMAGES.read(layout.images_table)[0]
    with MetricsCache(layout.metrics_cache) as store:
        batch_inspection.inspect_all([row], layout, store)
        found = store.fingerprint(row.file, metrics)
    assert np.array_equal(found.thumbnails, thumbnails)
    assert dataclasses.replace(found, thumbnails=None) == dataclasses.replace(
        metrics.fingerprint(thumbnails), thumbnails=None
    )
