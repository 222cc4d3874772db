"""Product crops: one per cleaned image, cropped or with a reason; only changed images are recomputed."""

import hashlib
from collections import Counter

import numpy as np
import pytest
from PIL import Image

import build_dataset
import crop
from skincare.cleaning.image_tables import CROPPED
from skincare.dataset import chat
from skincare.errors import MissingInputError, StageError
from skincare.images import decode
from skincare.paths import SPLITS, Layout
from skincare.tables import CLEAN, REJECTED, CleanRow
from tests.dataset_helpers import jpeg, pack, write_catalogue


def write_clean(layout: Layout, images: dict[str, bytes]) -> None:
    """Write cleaned images, given as image id -> bytes, and their table."""
    layout.clean_images.mkdir(parents=True, exist_ok=True)
    rows = []
    for image_id, content in images.items():
        file = layout.clean_images / f"pack_{image_id}.jpg"
        file.write_bytes(content)
        digest = hashlib.sha256(content).hexdigest()
        product_id = image_id.partition("_")[0]
        rows.append(CleanRow("", image_id, product_id, layout.relative(file), 0, 0, 0.0, 0.0, digest, ""))
    CLEAN.write(layout.clean_table, rows)


SCENE = jpeg(Image.fromarray(np.random.default_rng(0).integers(0, 255, (200, 200, 3), dtype=np.uint8)))
IMAGES = {"10000001_1": jpeg(pack(1, 240)), "10000002_1": jpeg(pack(2, 240)), "10000003_1": SCENE,
            "10000003_2": jpeg(Image.new("RGB", (300, 300), (255, 255, 255)))}  # fmt: skip


@pytest.fixture
def layout(tmp_path):
    found = Layout(tmp_path)
    write_clean(found, IMAGES)
    return found


def run(layout, **config):
    return crop.run(crop.Config(root=layout.root, **config), layout)


def files(layout):
    return {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in layout.cropped_images.iterdir()}


def test_every_image_is_written_and_reason_counts_add_up(layout):
    summary = run(layout)
    assert summary.counts == {"focused": 2, "no_plain_background": 1, "nothing_stands_out": 1}
    rows = {row.image_id: row for row in CROPPED.read(layout.crop_table)}
    assert rows.keys() == IMAGES.keys()
    assert Counter(row.outcome for row in rows.values()) == summary.counts
    for image_id, row in rows.items():
        content = (layout.root / row.file).read_bytes()
        assert row.file == f"clean_dataset/focused/pack_{image_id}.jpg"
        if row.outcome == "focused":
            image = decode(content)
            side = max(row.right - row.left, row.bottom - row.top)
            assert image.size == (round(side * 1.16),) * 2
            assert np.asarray(image)[0].min() > 250
        else:
            assert content == IMAGES[image_id]
            assert row.left is row.confidence is None


def test_keeping_the_background_only_crops_the_image(layout):
    run(layout, background="as_is", margin=0.0)
    row = CROPPED.read(layout.crop_table)[0]
    original = decode(IMAGES["10000001_1"]).crop((row.left, row.top, row.right, row.bottom))
    difference = np.abs(np.asarray(decode((layout.root / row.file).read_bytes()), dtype=int) - np.asarray(original))
    assert difference.mean() < 2


def test_only_changed_images_are_recomputed(layout):
    run(layout)
    first = files(layout)
    assert "(0 new)" in run(layout).headline
    assert files(layout) == first
    write_clean(layout, {**IMAGES, "10000002_1": jpeg(pack(9, 240)), "10000004_1": jpeg(pack(4, 240))})
    assert "(2 new)" in run(layout).headline
    changed = {name for name, one in files(layout).items() if one != first.get(name)}
    assert changed == {"pack_10000002_1.jpg", "pack_10000004_1.jpg"}
    assert "(5 new)" in run(layout, margin=0.2).headline


def test_crops_of_removed_images_are_deleted(layout):
    run(layout)
    write_clean(layout, {"10000001_1": IMAGES["10000001_1"]})
    run(layout)
    assert list(files(layout)) == ["pack_10000001_1.jpg"]
    assert [row.image_id for row in CROPPED.read(layout.crop_table)] == ["10000001_1"]


def test_an_interrupted_run_resumes_to_identical_output(layout, tmp_path, monkeypatch):
    run(layout)
    whole = {name: content for name, (content, _) in files(layout).items()}, layout.crop_table.read_bytes()
    layout.crop_table.unlink()
    monkeypatch.setattr(crop, "crop_image", interrupting(crop.crop_image, after=2))
    with pytest.raises(KeyboardInterrupt):
        run(layout)
    n_done = len(CROPPED.read(layout.crop_table))
    assert n_done < 4
    monkeypatch.undo()
    assert f"({4 - n_done} new)" in run(layout).headline
    assert ({name: content for name, (content, _) in files(layout).items()}, layout.crop_table.read_bytes()) == whole


def interrupting(function, after):
    seen = []

    def interrupted(*arguments):
        seen.append(1)
        if len(seen) > after:
            raise KeyboardInterrupt
        return function(*arguments)

    return interrupted


def test_a_broken_image_is_an_error_that_names_the_file_and_stage(layout):
    write_clean(layout, {"10000001_1": b"<!doctype html>"})
    with pytest.raises(StageError, match=r"pack_10000001_1\.jpg: not_an_image[^$]*clean\.py"):
        run(layout)


def test_an_invalid_margin_is_an_error(layout):
    with pytest.raises(StageError, match="--margin"):
        run(layout, margin=-0.1)


def test_the_dataset_uses_product_crops_with_the_same_split(layout):
    write_catalogue(layout, {f"1000000{n}": ("Oil", "Balm")[n % 2] for n in range(1, 9)})
    write_clean(layout, {f"1000000{n}_1": jpeg(pack(n, 240)) for n in range(1, 9)})
    REJECTED.write(layout.rejected_table, [])
    config = build_dataset.Config(root=layout.root, cropped=True)
    with pytest.raises(MissingInputError, match=r"crop\.py"):
        build_dataset.run(config, layout)
    build_dataset.run(build_dataset.Config(root=layout.root), layout)
    plain = {split: chat.read_dataset(layout, split) for split in SPLITS}
    run(layout)
    build_dataset.run(config, layout)
    for split in SPLITS:
        cropped = chat.read_dataset(layout, split)
        assert [one.image_id for one in cropped] == [one.image_id for one in plain[split]]
        assert {one.image.rpartition("/")[0] for one in cropped} == {"clean_dataset/focused"}
    write_clean(layout, {f"1000000{n}_1": jpeg(pack(n + (n == 3), 240)) for n in range(1, 9)})
    with pytest.raises(StageError, match=r"the crops of 1 of 8 images.*10000003_1"):
        build_dataset.run(config, layout)
