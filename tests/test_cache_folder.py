"""The cache's size limit deletes the oldest large files first, and clearing it deletes everything in it."""

import os

import pytest

from skincare import cache_folder
from skincare.paths import Layout


@pytest.fixture
def layout(tmp_path):
    """Four features and images of 100 bytes, oldest first, and predictions that are older still."""
    found = Layout(tmp_path)
    files = (
        found.answer_cache / "a.jsonl", found.vision_cache / "key" / "b.safetensors", found.image_cache / "c.jpg",
        found.vision_cache / "key" / "d.safetensors", found.image_cache / "e.jpg",
    )  # fmt: skip
    for i, file in enumerate(files):
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(bytes(100))
        os.utime(file, (i, i))
    return found


def names(layout):
    return sorted(file.name for file in layout.cache.rglob("*") if file.is_file())


@pytest.mark.parametrize(
    ("max_bytes", "kept"), [(500, "abcde"), (499, "acde"), (300, "ade"), (150, "a"), (0, "a")]
)  # fmt: skip
def test_the_oldest_features_and_images_are_deleted_first(layout, max_bytes, kept):
    assert cache_folder.trim(layout, max_bytes) == 5 - len(kept)
    assert [name[0] for name in names(layout)] == list(kept)


def test_clearing_deletes_the_cache_and_nothing_else(layout):
    other = layout.root / "log" / "a.json"
    other.parent.mkdir()
    other.write_text("{}")
    cache_folder.clear(layout)
    assert not layout.cache.exists()
    assert other.is_file()
    cache_folder.clear(layout)
    assert cache_folder.trim(layout, 0) == 0
