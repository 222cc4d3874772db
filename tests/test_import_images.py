"""import_images.py: every source format, hostile input, interruption and repeated runs."""

import csv
import hashlib
import io
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from PIL import Image

import export_dataset
import import_images
from skincare import images
from skincare.errors import MissingInputError, StageError
from skincare.images import decode
from skincare.importing import transfer
from skincare.paths import REPOSITORY, SPLITS, Layout
from skincare.tables import CATALOGUE, FAILURES, IMAGES
from tests.dataset_helpers import jpeg, pack, write_dataset_files


@pytest.fixture
def layout(tmp_path):
    return Layout(tmp_path / "root")


@pytest.fixture
def source(tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    return folder


def put(path: Path, content: bytes | Image.Image) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else jpeg(content))
    return path


def run(source: Path, layout: Layout, **options):
    return import_images.run(import_images.Config(source=source, root=layout.root, **options), layout)


def failures(layout: Layout) -> dict[str, str]:
    return {row.image_url: row.reason for row in FAILURES.read(layout.failures_table)}


def products(layout: Layout) -> list[set[str]]:
    """Return the set of source file names of each product."""
    found: dict[str, set[str]] = {}
    for row in IMAGES.read(layout.images_table):
        found.setdefault(row.product_id, set()).add(Path(row.source_url).name)
    return sorted(found.values(), key=min)


def tables(layout: Layout) -> dict[str, bytes]:
    paths = [layout.images_table, layout.failures_table, layout.catalogue, *layout.product_images.iterdir()]
    return {path.name: path.read_bytes() for path in paths}


def write_table(path: Path, rows: list[dict[str, str]], delimiter: str = ",", encoding: str = "utf-8") -> None:
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), delimiter=delimiter)
    writer.writeheader()
    writer.writerows(rows)
    path.write_bytes(text.getvalue().encode(encoding))


# -- one folder per category


def test_every_file_is_imported_or_has_a_row_with_a_reason(source, layout):
    put(source / "Cleanser" / "rose.jpg", pack(1))
    put(source / "bath_salts" / "blue.png", jpeg(pack(2)))
    put(source / "Nonsense" / "what.jpg", pack(3))
    put(source / "Serum" / "notes.txt", b"no image")
    put(source / "Serum" / "cut.jpg", jpeg(pack(4))[:5000])
    put(source / "loose.jpg", pack(5))
    (source / "Mask").mkdir()
    (source / "Mask" / "out.jpg").symlink_to(put(source.parent / "elsewhere.jpg", pack(6)))
    os.mkfifo(source / "Mask" / "pipe.jpg")
    summary = run(source, layout)
    assert summary.counts == {
        "imported": 2, "no_category": 1, "not_a_file": 1, "not_an_image": 1, "outside_source": 1, "truncated": 1,
        "unknown_category": 1,
    }  # fmt: skip
    assert failures(layout) == {
        "Nonsense/what.jpg": "unknown_category", "Serum/notes.txt": "not_an_image", "Serum/cut.jpg": "truncated",
        "loose.jpg": "no_category", "Mask/out.jpg": "outside_source", "Mask/pipe.jpg": "not_a_file",
    }  # fmt: skip
    assert summary.results["n_products"] == 2, "products without an image are not counted"
    assert {row.product_type for row in CATALOGUE.read(layout.catalogue)} == {"Cleanser", "Bath Salts", "Serum"}
    for row in IMAGES.read(layout.images_table):
        assert hashlib.sha256((layout.root / row.file).read_bytes()).hexdigest() == row.sha256


def test_an_unknown_category_suggests_the_nearest_label_and_can_be_mapped(source, layout):
    put(source / "Moisturisers" / "a.jpg", pack(1))
    with pytest.raises(StageError, match="nearest label: Moisturiser"):
        run(source, layout)
    summary = run(source, layout, categories={"Moisturisers": "Moisturiser"})
    assert summary.counts == {"imported": 1}


def test_an_alias_is_resolved_to_its_label(source, layout):
    put(source / "moisturizer" / "a.jpg", pack(1))
    run(source, layout)
    assert [row.product_type for row in CATALOGUE.read(layout.catalogue)] == ["Moisturiser"]


def test_the_labels_file_of_the_root_is_used(source, layout):
    put(source / "Teapot" / "a.jpg", pack(1))
    put(source / "Serum" / "b.jpg", pack(2))
    layout.root.mkdir()
    (layout.root / "labels.toml").write_text('labels = ["Teapot", "Kettle"]\ninstruction = "One of: {labels}"\n')
    assert run(source, layout).counts == {"imported": 1, "unknown_category": 1}


# -- conversion


def awkward_images() -> dict[str, bytes]:
    """Return images that decoders handle differently, or that are not plain RGB JPEGs."""
    image = pack(7, 320)

    def saved(image: Image.Image, kind: str, **options) -> bytes:
        buffer = io.BytesIO()
        image.save(buffer, kind, **options)
        return buffer.getvalue()

    see_through = image.convert("RGBA")
    see_through.putalpha(Image.linear_gradient("L").resize(image.size))
    turned = Image.Exif()
    turned[0x0112] = 6
    return {
        "webp_named.jpg": saved(image, "WEBP"), "see_through.png": saved(see_through, "PNG"),
        "turned.jpg": saved(image, "JPEG", exif=turned), "cmyk.jpg": saved(image.convert("CMYK"), "JPEG"),
        "grey.jpg": saved(image.convert("L"), "JPEG"), "palette.gif": saved(image, "GIF"),
    }  # fmt: skip


@pytest.mark.parametrize("name", list(awkward_images()))
def test_other_formats_are_converted_to_the_decoded_image(source, layout, name):
    content = awkward_images()[name]
    put(source / "Mist" / name, content)
    run(source, layout)
    (row,) = IMAGES.read(layout.images_table)
    written = (layout.root / row.file).read_bytes()
    assert images.is_plain_jpeg(written)
    assert written == images.encode_jpeg(decode(content))


def test_a_plain_jpeg_keeps_its_bytes_and_can_be_a_hard_link(source, layout, tmp_path):
    path = put(source / "Mist" / "plain.jpg", pack(1))
    run(source, layout)
    (row,) = IMAGES.read(layout.images_table)
    assert (layout.root / row.file).read_bytes() == path.read_bytes()
    assert not (layout.root / row.file).samefile(path)
    linked = Layout(tmp_path / "linked")
    run(source, linked, link=True)
    assert (linked.root / row.file).samefile(path)


def test_a_file_that_is_too_large_is_not_read(source, layout, monkeypatch):
    monkeypatch.setattr(transfer, "MAX_BYTES", 10_000)
    put(source / "Mist" / "film.jpg", b"\xff\xd8\xff" + bytes(20_000))
    put(source / "Mist" / "ok.jpg", jpeg(pack(1, 200)))
    run(source, layout)
    assert failures(layout) == {"Mist/film.jpg": "too_large"}


# -- tables


COLUMNS = ["file_name", "category", "product_id"]


@pytest.mark.parametrize(
    ("name", "delimiter", "encoding"),
    [("a.csv", ",", "utf-8"), ("a.csv", ";", "utf-8-sig"), ("a.tsv", "\t", "utf-16"), ("a.csv", ",", "cp1252")],
)
def test_tables_are_read_in_every_supported_format(source, layout, name, delimiter, encoding):
    put(source / "é.jpg", pack(1))
    put(source / "b.jpg", pack(2))
    rows = [
        {"file_name": "é.jpg", "category": "Toner", "product_id": "7"},
        {"file_name": "b.jpg", "category": "Toner", "product_id": "7"},
    ]
    write_table(source / name, rows, delimiter, encoding)
    summary = run(source, layout)
    assert summary.counts == {"imported": 2}
    assert summary.results["columns"] == {"image": "file_name", "category": "category", "product": "product_id"}
    assert products(layout) == [{"é.jpg", "b.jpg"}]


def test_hugging_faces_metadata_files_are_read_in_each_split(source, layout):
    for split, seed in (("train", 1), ("test", 2)):
        put(source / split / "0.jpg", pack(seed))
        line = {"file_name": "0.jpg", "label": "Peel", "licence": "CC0", "objects": {"a": [1]}}
        (source / split / "metadata.jsonl").write_text(json.dumps(line) + "\n")
    run(source, layout)
    found = {(row.source_url, row.licence) for row in IMAGES.read(layout.images_table)}
    assert found == {("test/0.jpg", "CC0"), ("train/0.jpg", "CC0")}


def test_columns_with_unknown_names_are_detected_by_content(source, layout):
    put(source / "x.jpg", pack(1))
    write_table(source / "t.csv", [{"type": "packshot", "was": "x.jpg", "sort": "body wash"}])
    summary = run(source, layout)
    assert summary.results["columns"] == {"image": "was", "category": "sort"}


def test_command_line_columns_take_precedence_and_must_exist(source, layout):
    put(source / "x.jpg", pack(1))
    write_table(source / "t.csv", [{"file": "x.jpg", "category": "Mask", "second": "Oil"}])
    with pytest.raises(StageError, match="no such column"):
        run(source, layout, columns={"category": "third"})
    run(source, layout, columns={"category": "second"})
    assert [row.product_type for row in CATALOGUE.read(layout.catalogue)] == ["Oil"]


def test_folders_give_the_categories_of_a_table_without_them(source, layout):
    put(source / "Toner" / "x.jpg", pack(1))
    write_table(source / "t.csv", [{"file": "Toner/x.jpg", "author": "A. Nobody"}])
    run(source, layout)
    assert [row.attribution for row in IMAGES.read(layout.images_table)] == ["A. Nobody"]


def test_hostile_rows_are_rejected_with_a_reason(source, layout):
    put(source / "ok.jpg", pack(1))
    put(source / "twin.jpg", pack(2))
    put(source / "unlisted.jpg", pack(3))
    put(source.parent / "secret.jpg", pack(4))
    (source / "link.jpg").symlink_to(source.parent / "secret.jpg")
    cells = [
        "ok.jpg", "ok.jpg", "twin.jpg", "../secret.jpg", str(source.parent / "secret.jpg"), "link.jpg", "absent.jpg",
        "", "https://shop.example/x.jpg", ".", "a" * 5000, "nul\0.jpg",
    ]  # fmt: skip
    rows = [{"file": cell, "category": "Mask"} for cell in cells]
    rows[2]["category"] = "=cmd()"
    write_table(source / "t.csv", rows)
    with (source / "t.csv").open("a") as file:
        file.write("too,many,cells\n")
    summary = run(source, layout)
    assert summary.counts == {
        "imported": 1, "bad_row": 4, "duplicate_row": 1, "is_a_web_address": 1, "missing_file": 1, "not_a_file": 1,
        "not_in_table": 1, "outside_source": 4, "unknown_category": 1,
    }  # fmt: skip
    assert b"\n=cmd" not in layout.failures_table.read_bytes()


def test_spreadsheet_formulas_are_not_written_to_the_catalogue(source, layout):
    put(source / "x.jpg", pack(1))
    write_table(source / "t.csv", [{"file": "x.jpg", "category": "Mask", "name": "=HYPERLINK(1)"}])
    run(source, layout)
    assert "\n=" not in layout.catalogue.read_text()


def test_several_tables_require_a_choice(source, layout, tmp_path):
    put(source / "x.jpg", pack(1))
    for name in ("a.csv", "b.csv"):
        write_table(source / name, [{"file": "x.jpg", "category": "Mask"}])
    with pytest.raises(StageError, match="--table"):
        run(source, layout)
    for i, table in enumerate((source / "b.csv", Path("b.csv"))):
        found = run(source, Layout(tmp_path / f"named_{i}"), table=table)
        assert found.counts == {"imported": 1, "not_in_table": 1}, "also relative to the source"


# -- grouping


def test_a_product_has_the_category_of_its_first_image(source, layout):
    rows = []
    for i, category in enumerate(["Mask", "Oil", "Mask"]):
        put(source / f"{i}.jpg", pack(i))
        rows.append({"file": f"{i}.jpg", "category": category, "sku": "A"})
    write_table(source / "t.csv", rows)
    run(source, layout)
    assert products(layout) == [{"0.jpg", "2.jpg"}]
    assert failures(layout) == {"1.jpg": "conflicting_category"}


def test_folders_below_a_category_are_products(source, layout):
    for i, name in enumerate(["rose/front.jpg", "rose/back.jpg", "lily/front.jpg"]):
        put(source / "Toner" / name, pack(i))
    summary = run(source, layout)
    assert summary.results["grouped_by"] == "folder"
    assert products(layout) == [{"back.jpg", "front.jpg"}, {"front.jpg"}]


def test_numbered_file_names_group_products_but_camera_numbers_do_not(source, layout):
    names = ["rose_1", "rose_2", "lily", "lily (2)", "Toner-1", "Toner-2", "IMG_4711", "IMG_4712", "iris_1", "iris_7"]
    for i, name in enumerate(names):
        put(source / "Toner" / f"{name}.jpg", pack(i))
    summary = run(source, layout)
    assert summary.results["grouped_by"] == "pattern"
    assert [found for found in products(layout) if len(found) > 1] == [
        {"lily.jpg", "lily (2).jpg"}, {"rose_1.jpg", "rose_2.jpg"},
    ]  # fmt: skip


def test_a_command_line_pattern_extracts_the_product(source, layout):
    for i, name in enumerate(["11-a", "11-b", "12-a"]):
        put(source / "Toner" / f"{name}.jpg", pack(i))
    run(source, layout, product_pattern="^([0-9]+)-")
    assert products(layout) == [{"11-a.jpg", "11-b.jpg"}, {"12-a.jpg"}]
    with pytest.raises(StageError, match="group"):
        run(source, layout, product_pattern="^[0-9]+")


def test_near_duplicates_are_one_product_unless_their_categories_differ(source, layout):
    put(source / "Toner" / "first.jpg", pack(1))
    put(source / "Toner" / "second.jpg", jpeg(pack(1), quality=70))
    put(source / "Toner" / "other.jpg", pack(2))
    put(source / "Oil" / "third.jpg", jpeg(pack(1), quality=60))
    summary = run(source, layout)
    assert summary.results["grouped_by"] == "near-duplicates"
    assert products(layout) == [{"first.jpg", "second.jpg"}, {"other.jpg"}, {"third.jpg"}]
    before = tables(layout)
    run(source, layout)
    assert tables(layout) == before


# -- shards and saved datasets


def test_exported_parquet_shards_are_imported_with_categories_and_products(source, layout, tmp_path):
    pytest.importorskip("pyarrow", reason="pyarrow is not installed")
    made = Layout(tmp_path / "made")
    parts = write_dataset_files(made, {"train": 4, "val": 2, "test": 2})
    export_dataset.run(export_dataset.Config(root=made.root, format="parquet", to=str(source)), made)
    summary = run(source, layout)
    assert summary.counts == {"imported": 8}
    assert summary.results["grouped_by"] == "column"
    rows = {row.sha256 for row in IMAGES.read(layout.images_table)}
    assert rows == {
        hashlib.sha256((made.root / one.image).read_bytes()).hexdigest() for split in SPLITS for one in parts[split]
    }


def test_a_saved_dataset_is_read_with_its_class_names(source, layout, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    datasets = pytest.importorskip("datasets", reason="`datasets` is not installed")
    features = datasets.Features({"picture": datasets.Image(), "label": datasets.ClassLabel(names=["Serum", "Teapot"])})
    rows = {"picture": [pack(1), pack(2), pack(3)], "label": [0, 1, 0]}
    datasets.DatasetDict({"train": datasets.Dataset.from_dict(rows, features)}).save_to_disk(str(source / "saved"))
    assert run(source / "saved", layout).counts == {"imported": 2, "unknown_category": 1}
    for row in IMAGES.read(layout.images_table):
        assert Image.open(layout.root / row.file).size == (480, 480)


def test_a_damaged_shard_is_an_error_that_names_the_file(source, layout):
    pytest.importorskip("pyarrow", reason="pyarrow is not installed")
    put(source / "train-0.parquet", b"PAR1" + bytes(100))
    with pytest.raises(StageError, match=r"train-0\.parquet"):
        run(source, layout)


# -- rejected sources


def test_an_invalid_source_is_an_error(source, layout):
    with pytest.raises(MissingInputError):
        run(source / "absent", layout)
    with pytest.raises(StageError, match="no source of images"):
        run(put(source / "a.zip", b"PK"), layout)
    with pytest.raises(StageError, match="no image could be imported"):
        run(source, layout)
    assert not layout.images_table.exists()


def test_a_collection_of_another_stage_is_not_replaced(source, layout):
    put(source / "Toner" / "a.jpg", pack(1))
    layout.catalogue.parent.mkdir(parents=True)
    layout.catalogue.write_text("product_name,product_url,product_type\n")
    with pytest.raises(StageError, match="--root"):
        run(source, layout)


def test_a_second_source_does_not_replace_the_first(source, layout, tmp_path):
    put(source / "Toner" / "a.jpg", pack(1))
    run(source, layout)
    put(tmp_path / "more" / "Toner" / "b.jpg", pack(2))
    with pytest.raises(StageError, match="below one folder"):
        run(tmp_path / "more", layout)


def test_a_source_that_contains_the_output_is_rejected(source):
    put(source / "Toner" / "a.jpg", pack(1))
    with pytest.raises(StageError, match="overlap"):
        run(source, Layout(source))


# -- repeated runs


def test_a_second_run_transfers_nothing_and_changes_nothing(source, layout, monkeypatch):
    for i in range(3):
        put(source / "Toner" / f"{i}x.jpg", pack(i))
    run(source, layout)
    before = tables(layout)
    monkeypatch.setattr(import_images, "_transfer", lambda job: pytest.fail(f"{job.place} again"))
    run(source, layout)
    assert tables(layout) == before


def test_source_changes_are_imported_and_ids_stay_stable(source, layout):
    first = put(source / "Toner" / "b_1.jpg", pack(1))
    put(source / "Toner" / "b_2.jpg", pack(2))
    put(source / "Toner" / "c_1.jpg", pack(3))
    put(source / "Toner" / "c_2.jpg", pack(4))
    run(source, layout)
    ids = {row.source_url: row.image_id for row in IMAGES.read(layout.images_table)}
    first.unlink()
    put(source / "Toner" / "b_0.jpg", pack(5))
    put(source / "Toner" / "b_2.jpg", pack(6))
    run(source, layout, group_by="pattern", product_pattern="^([a-z])_")
    run(source, layout, group_by="pattern")
    rows = {row.source_url: row for row in IMAGES.read(layout.images_table)}
    assert "Toner/b_1.jpg" not in rows
    assert rows["Toner/c_2.jpg"].image_id == ids["Toner/c_2.jpg"]
    assert (layout.root / rows["Toner/b_2.jpg"].file).read_bytes() == jpeg(pack(6))
    assert {path.name for path in layout.product_images.iterdir()} == {Path(row.file).name for row in rows.values()}


def test_an_image_keeps_its_id_when_another_is_inserted_before_it(source, layout):
    put(source / "Toner" / "rose" / "b.jpg", pack(1))
    run(source, layout)
    (before,) = IMAGES.read(layout.images_table)
    put(source / "Toner" / "rose" / "a.jpg", pack(2))
    run(source, layout)
    after = {row.source_url: row.image_id for row in IMAGES.read(layout.images_table)}
    assert after["Toner/rose/b.jpg"] == before.image_id
    assert after["Toner/rose/a.jpg"] == f"{before.product_id}_2"


def test_a_deleted_output_image_is_restored(source, layout):
    put(source / "Toner" / "a.jpg", pack(1))
    run(source, layout)
    before = tables(layout)
    next(layout.product_images.iterdir()).unlink()
    run(source, layout)
    assert tables(layout) == before


def test_a_killed_run_resumes_to_the_same_result(source, layout, tmp_path):
    for i in range(60):
        put(source / "Toner" / f"pack{i}x.jpg", pack(i, 200))
    whole = Layout(tmp_path / "whole")
    command = [sys.executable, str(REPOSITORY / "src" / "import_images.py"), str(source), "--root"]
    subprocess.run([*command, str(whole.root)], check=True, capture_output=True)
    process = subprocess.Popen([*command, str(layout.root)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and len(list(layout.product_images.glob("*.jpg"))) < 5:
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not layout.images_table.exists()
    subprocess.run([*command, str(layout.root)], check=True, capture_output=True)
    assert tables(layout) == tables(whole)


@pytest.mark.slow
def test_real_photos_are_all_imported_with_the_categories_of_their_table(real_data, layout):
    summary = run(real_data / "photos.csv", layout)
    with (real_data / "photos.csv").open(encoding="utf-8") as file:
        listed = list(csv.DictReader(file))
    assert summary.counts == {"imported": len(listed)}
    assert summary.results["columns"] == {
        "image": "file", "category": "category", "product": "product_key", "name": "product_name",
    }  # fmt: skip
    assert summary.results["n_products"] == len({row["product_key"] for row in listed})
    category_of = {row.product_id: row.product_type for row in CATALOGUE.read(layout.catalogue)}
    found = {row.source_url: category_of[row.product_id] for row in IMAGES.read(layout.images_table)}
    assert found == {row["file"]: row["category"] for row in listed}


def test_real_broken_files_have_a_reason_and_unusual_ones_are_converted(real_data, layout, source):
    files = [path for path in sorted((real_data / "broken").rglob("*")) if path.is_file()]
    for i, path in enumerate(files):
        put(source / "Mask" / f"{i}-{path.name}", path.read_bytes())
    summary = run(source, layout, group_by="none")
    assert sum(summary.counts.values()) == len(files)
    assert set(summary.counts) <= {
        "imported", "corrupt", "empty", "kills_decoder", "not_an_image", "too_many_pixels", "truncated",
        "unsupported_format",
    }  # fmt: skip
    for row in IMAGES.read(layout.images_table):
        assert images.is_plain_jpeg((layout.root / row.file).read_bytes())
