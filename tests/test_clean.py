"""Cleaning keeps or rejects every image with a reason, in any input order, and leaves the originals unchanged."""

import io
import json
import re
from collections import Counter

import pytest
from PIL import Image, ImageDraw, ImageFilter

import clean
from skincare.cleaning.image_tables import MARKS, REVIEW, MarkRow
from skincare.errors import MissingInputError, StageError
from skincare.paths import Layout
from skincare.tables import CLEAN, IMAGES, REJECTED
from tests.dataset_helpers import jpeg, pack, write_catalogue, write_images


@pytest.fixture
def layout(tmp_path):
    found = Layout(tmp_path)
    write_catalogue(found, {"10000001": "Oil", "10000002": "Oil", "10000003": "Balm"})
    return found


def cleaned(layout, images, **config):
    """Clean these images; return image id -> "kept" or the rejected row, and the summary."""
    write_images(layout, images)
    summary = clean.run(clean.Config(root=layout.root, **config), layout)
    found = {row.image_id: "kept" for row in CLEAN.read(layout.clean_table)}
    found |= {row.image_id: row for row in REJECTED.read(layout.rejected_table)}
    assert found.keys() == images.keys(), "kept + rejected = seen"
    assert sum(summary.counts.values()) == len(images)
    return found, summary


def reasons(found):
    return {image_id: one if one == "kept" else one.reason for image_id, one in found.items()}


BROKEN = {
    "empty": b"",
    "not_an_image": b"<!doctype html><title>Oops</title>",
    "truncated": jpeg(pack(1))[:-4000],
    "too_small": jpeg(pack(1, 120)),
    "blurred": jpeg(pack(1).filter(ImageFilter.GaussianBlur(10))),
}


@pytest.mark.parametrize("reason", BROKEN)
def test_rejected_images_are_listed_with_their_reason(layout, reason):
    found, _ = cleaned(layout, {"10000001_1": jpeg(pack(7)), "10000001_2": BROKEN[reason]})
    assert reasons(found) == {"10000001_1": "kept", "10000001_2": reason}
    if reason in ("too_small", "blurred"):
        assert float(found["10000001_2"].value) < float(found["10000001_2"].limit)


def test_a_missing_image_is_listed_with_its_reason(layout):
    write_images(layout, {"10000001_1": jpeg(pack(7)), "10000001_2": jpeg(pack(8))})
    next(layout.product_images.glob("*_2.jpg")).unlink()
    clean.run(clean.Config(root=layout.root), layout)
    assert [row.reason for row in REJECTED.read(layout.rejected_table)] == ["missing_file"]


def test_paths_outside_the_dataset_are_rejected(layout, tmp_path):
    write_images(layout, {"10000001_1": jpeg(pack(7)), "10000001_2": jpeg(pack(8))})
    secret = tmp_path / "pack-10000001_10000001_2.jpg"
    secret.write_bytes(jpeg(pack(8)))
    text = layout.images_table.read_text()
    layout.images_table.write_text(text.replace("product_images/pack-10000001_10000001_2", "pack-10000001_10000001_2"))
    clean.run(clean.Config(root=layout.root), layout)
    assert [row.reason for row in REJECTED.read(layout.rejected_table)] == ["bad_path"]


ORIGINAL = pack(3, 600)


@pytest.mark.parametrize(
    ("duplicate", "reason"),
    [
        (jpeg(ORIGINAL), "duplicate_bytes"),
        (jpeg(ORIGINAL, 50), "near_duplicate"),
        (jpeg(ORIGINAL.resize((450, 450))), "near_duplicate"),
    ],
    ids=["bytes", "recompressed", "smaller"],
)
def test_the_representative_is_the_largest_and_least_compressed_duplicate(layout, duplicate, reason):
    original, other = jpeg(ORIGINAL), jpeg(pack(4))
    for images in (
        {"10000001_1": original, "10000002_1": duplicate, "10000002_2": other},
        {"10000001_1": duplicate, "10000002_1": original, "10000002_2": other},
    ):
        found, _ = cleaned(layout, images)
        rejected = "10000002_1" if images["10000001_1"] == original else "10000001_1"
        kept = "10000001_1" if rejected == "10000002_1" else "10000002_1"
        assert reasons(found) == {kept: "kept", rejected: reason, "10000002_2": "kept"}
        assert found[rejected].duplicate_of == kept


def test_equal_pixels_in_different_files_are_duplicate_pixels(layout):
    image = pack(5)
    plain, commented = io.BytesIO(), io.BytesIO()
    image.save(plain, "PNG")
    image.save(commented, "PNG", compress_level=1)
    found, _ = cleaned(layout, {"10000001_1": plain.getvalue(), "10000001_2": commented.getvalue()})
    assert Counter(reasons(found).values()) == {"kept": 1, "duplicate_pixels": 1}


def test_duplicates_with_different_categories_are_all_rejected(layout):
    shared = jpeg(pack(3))
    images = {
        "10000001_1": shared,
        "10000002_1": jpeg(pack(3), 60),
        "10000003_1": shared,
        "10000003_2": jpeg(pack(9)),
    }
    found, summary = cleaned(layout, images)
    assert reasons(found) == {
        "10000001_1": "category_conflict", "10000002_1": "category_conflict", "10000003_1": "category_conflict",
        "10000003_2": "kept",
    }  # fmt: skip
    assert all(found[i].duplicate_of for i in found if i != "10000003_2")
    assert summary.results["products_lost"] == ["10000001", "10000002"]
    assert summary.results["products_lost_by_category"] == {"Oil": 2}


def placeholder(quality: int) -> bytes:
    image = Image.new("RGB", (400, 400), "white")
    ImageDraw.Draw(image).ellipse((100, 80, 300, 280), outline="grey", width=16)
    return jpeg(image, quality)


@pytest.mark.parametrize(("n_products", "reason"), [(5, "shared_image"), (4, "near_duplicate")])
def test_an_image_shared_by_many_products_is_rejected_for_all(tmp_path, n_products, reason):
    layout = Layout(tmp_path)
    ids = [f"1000000{i}" for i in range(1, 8)]
    write_catalogue(layout, dict.fromkeys(ids, "Oil"), {one: f"Oil {chr(96 + int(one[-1]))}" for one in ids})
    images = {f"{one}_1": jpeg(pack(int(one))) for one in ids}
    # Re-encoded for each product: neither bytes nor pixels are equal.
    images |= {f"{one}_2": placeholder(70 + 3 * i) for i, one in enumerate(ids[:n_products])}
    found, _ = cleaned(layout, images)
    assert {found[f"{one}_1"] for one in ids} == {"kept"}
    counts = Counter(reasons(found)[f"{one}_2"] for one in ids[:n_products])
    assert counts == ({reason: 5} if n_products == 5 else {reason: 3, "kept": 1})
    if reason == "shared_image":
        assert {(row.value, row.limit) for row in found.values() if row != "kept"} == {("5", "5")}
        found, _ = cleaned(layout, images, shared_by=6)
        assert Counter(reasons(found).values())["shared_image"] == 0


def test_a_shared_image_is_not_a_category_conflict(layout):
    categories = {f"1000000{i}": "Oil" if i % 2 else "Balm" for i in range(1, 7)}
    write_catalogue(layout, categories, {one: f"Oil {chr(96 + int(one[-1]))}" for one in categories})
    images = {f"{one}_1": placeholder(90) for one in categories} | {"10000001_2": jpeg(pack(1))}
    found, _ = cleaned(layout, images)
    assert Counter(reasons(found).values()) == {"shared_image": 6, "kept": 1}


def test_size_variants_count_as_one_product_for_shared_images(layout):
    ids = [f"1000000{i}" for i in range(1, 8)]
    names = {one: f"Plain Oil ({10 * i}ml)" for i, one in enumerate(ids, 1)}
    write_catalogue(layout, dict.fromkeys(ids, "Oil"), names)
    found, _ = cleaned(layout, {f"{one}_1": placeholder(90) for one in ids})
    assert Counter(reasons(found).values()) == {"kept": 1, "duplicate_bytes": 6}


def test_blank_images_are_not_duplicates(layout):
    shades = {f"10000001_{i}": jpeg(Image.new("RGB", (400, 400), (0, 0, 250 - 3 * i))) for i in range(1, 4)}
    found, _ = cleaned(layout, shades, only=("duplicate_pixels", "near_duplicate"))
    assert set(reasons(found).values()) == {"kept"}


def test_packs_of_different_products_are_kept(layout):
    """Image hashes would reject 14 to 297 of 400 such images."""
    images = {f"10000001_{i}": jpeg(pack(1000 + i, 320)) for i in range(1, 121)}
    found, _ = cleaned(layout, images)
    different = len({pack(1000 + i, 320).tobytes() for i in range(1, 121)})
    assert Counter(reasons(found).values())["kept"] == different


def test_a_second_run_is_identical_and_leaves_originals_unchanged(layout):
    images = {f"10000001_{i}": jpeg(pack(i)) for i in range(1, 6)} | {"10000002_1": jpeg(pack(1), 55)}

    def files(folder):
        found = {path.relative_to(layout.root): path for path in folder.rglob("*") if path.is_file()}
        return {name: path.read_bytes() for name, path in found.items() if name.parts[0] != ".cache"}

    cleaned(layout, images)
    originals, first = files(layout.product_images), files(layout.root)
    clean.run(clean.Config(root=layout.root), layout)
    assert files(layout.root) == first
    assert files(layout.product_images) == originals


def test_the_output_folder_contains_exactly_the_listed_images(layout):
    cleaned(layout, {"10000001_1": jpeg(pack(1)), "10000001_2": jpeg(pack(2))})
    cleaned(layout, {"10000001_2": jpeg(pack(2))})
    assert [path.name for path in layout.clean_images.iterdir()] == ["pack-10000001_10000001_2.jpg"]


def test_output_does_not_depend_on_the_order_of_the_table(layout):
    images = {f"1000000{p}_{i}": jpeg(pack(i), 90 - p) for p in (1, 2) for i in range(1, 5)}
    cleaned(layout, images)
    first = layout.clean_table.read_bytes(), layout.rejected_table.read_bytes()
    header, *rows = layout.images_table.read_text().splitlines()
    layout.images_table.write_text("\n".join([header, *reversed(rows)]) + "\n")
    clean.run(clean.Config(root=layout.root), layout)
    assert (layout.clean_table.read_bytes(), layout.rejected_table.read_bytes()) == first


def test_report_counts_add_up_and_name_the_threshold_table(layout):
    cleaned(layout, {"10000001_1": jpeg(pack(1)), "10000001_2": BROKEN["blurred"], "10000001_3": BROKEN["empty"]})
    report = layout.cleaning_report.read_text()
    assert "3 images of 1 products" in report
    assert "1 kept (33.3%)" in report
    assert "10000001_2 blurred" in report
    assert re.search(r"^ +blurred +Oil 1 of 3$", report, re.MULTILINE)
    assert layout.plot("blur_histogram").read_bytes().startswith(b"\x89PNG")
    json.dumps(clean.run(clean.Config(root=layout.root), layout).results)


def test_an_empty_dataset_is_an_error_that_names_the_stage_before(layout):
    with pytest.raises(MissingInputError, match=r"scrape\.py"):
        clean.run(clean.Config(root=layout.root), layout)
    IMAGES.write(layout.images_table, [])
    with pytest.raises(StageError, match="scrape_failures"):
        clean.run(clean.Config(root=layout.root), layout)


def test_a_repeated_image_id_is_an_error(layout):
    write_images(layout, {"10000001_1": jpeg(pack(1))})
    text = layout.images_table.read_text()
    layout.images_table.write_text(text + text.splitlines()[1] + "\n")
    with pytest.raises(StageError, match="more than once"):
        clean.run(clean.Config(root=layout.root), layout)


def test_reviewed_images_propose_a_threshold_without_cleaning(layout):
    """Both directions are tested: a minimum threshold and a maximum threshold."""
    images = {f"10000001_{i}": jpeg(pack(i, 300).filter(ImageFilter.GaussianBlur(0.2 * i))) for i in range(1, 25)}
    cleaned(layout, images)
    before = layout.clean_table.read_bytes(), layout.rejected_table.read_bytes()
    for check, is_good in (("blurred", lambda value: value > 150), ("overexposed", lambda value: value < 100)):
        config = clean.Config(root=layout.root, review=check)
        assert not config.writes_summary
        assert clean.run(config, layout).counts == {"shown": 24, "not_shown": 0}
        rows = REVIEW.read(layout.review_table(check))
        marks = layout.root / "marks.csv"
        MARKS.write(marks, [
            MarkRow(row.sheet, row.check, row.image_id, row.value, "keep" if is_good(row.value) else "reject")
            for row in rows
        ])  # fmt: skip
        clean.run(clean.Config(root=layout.root, calibrate=marks), layout)
        found = json.loads(layout.threshold_calibration.read_text())
        assert found["check"] == check
        assert found["n_keep"] == sum(is_good(row.value) for row in rows)
        assert next(one for one in found["thresholds"] if one["threshold"] == found["threshold"])["n_rejected"] == sum(
            row.value < found["threshold"] if found["is_least"] else row.value > found["threshold"] for row in rows
        )
    assert (layout.clean_table.read_bytes(), layout.rejected_table.read_bytes()) == before
