"""Near-duplicates are verified on the images, results are cached, a large group needs one comparison per image."""

import pytest

from skincare import worker_pool
from skincare.cleaning import verification
from skincare.cleaning.batch_inspection import inspect_all
from skincare.cleaning.metrics_cache import MetricsCache
from skincare.cleaning.verification import InspectedImage
from skincare.paths import Layout
from skincare.tables import IMAGES
from tests.dataset_helpers import jpeg, pack, write_images


@pytest.fixture
def compared(monkeypatch):
    """Return the list of comparisons; they run in this process."""
    tasks = []

    def map_here(_engine, function, items, _on_failure):
        for item in items:
            if isinstance(item, verification.Comparison):
                tasks.append(item)
            yield function(item)

    monkeypatch.setattr(worker_pool, "map_ordered", map_here)
    return tasks


def pairs_of(layout, images):
    write_images(layout, images)
    with MetricsCache(layout.metrics_cache) as cache:
        found = inspect_all(IMAGES.read(layout.images_table), layout, cache)
        inspected = [InspectedImage(layout.root / one.row.file, one.row.file, one.metrics) for one in found]
        return verification.near_duplicate_pairs(inspected, cache)


def test_a_large_group_needs_one_comparison_per_image(tmp_path, compared):
    images = {f"1000000{i}_1": jpeg(pack(1, 300), 80 + i) for i in range(1, 9)} | {"10000009_1": jpeg(pack(2, 300))}
    found = pairs_of(Layout(tmp_path), images)
    assert set(found) == {(i, j) for j in range(8) for i in range(j)}
    assert all(difference <= 1 for difference in found.values())
    assert len(compared) == 7


def test_decisions_are_cached_by_file_content(tmp_path, compared):
    layout = Layout(tmp_path)
    images = {"10000001_1": jpeg(pack(1)), "10000001_2": jpeg(pack(1), 60)}
    first = pairs_of(layout, images)
    assert len(compared) == 1
    assert pairs_of(layout, images) == first
    assert len(compared) == 1
    pairs_of(layout, images | {"10000001_2": jpeg(pack(1), 50)})
    assert len(compared) == 2


def test_a_missing_file_is_not_a_duplicate(tmp_path, compared):
    layout = Layout(tmp_path)
    write_images(layout, {"10000001_1": jpeg(pack(1)), "10000001_2": jpeg(pack(1), 60)})
    with MetricsCache(layout.metrics_cache) as cache:
        found = inspect_all(IMAGES.read(layout.images_table), layout, cache)
        inspected = [InspectedImage(layout.root / one.row.file, one.row.file, one.metrics) for one in found]
        inspected[1].path.unlink()
        assert verification.near_duplicate_pairs(inspected, cache) == {}
