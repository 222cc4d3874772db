"""read_text.py: one row per image, cached results, and images that crash the OCR engine."""

import contextlib
import hashlib
import os
import signal
import sqlite3
import time
from collections import Counter

import cv2
import numpy as np
import pytest
from PIL import Image

import read_text
from skincare import worker_pool
from skincare.errors import MissingInputError, StageError
from skincare.paths import Layout
from skincare.tables import CLEAN, CleanRow
from skincare.text_reading import extraction, ocr
from skincare.text_reading.pack_text import TextLine, read_pack_text
from tests.dataset_helpers import jpeg

BOX = ((0.1, 0.2), (0.5, 0.2), (0.5, 0.3), (0.1, 0.3))
# Behaviour of the fake engine below for images of this grey value.
KILLS, HANGS, RAISES, BLANK = 10, 20, 30, 40


class FakeEngine:
    """Returns the grey value of an image as text and logs each call."""

    name = "drawn"

    def __init__(self, log):
        self._log = log

    def read(self, image):
        grey = int(image[0, 0, 0])
        with self._log.open("a") as file:
            file.write(f"{grey}\n")
        if grey == KILLS:
            os.kill(os.getpid(), signal.SIGKILL)
        if grey == HANGS:
            time.sleep(60)
        if grey == RAISES:
            raise cv2.error("no such line")
        return [] if grey == BLANK else [TextLine(f"grey {grey}", 0.9, BOX, 0.1)]


def image_of(grey: int) -> bytes:
    return jpeg(Image.fromarray(np.full((40, 40, 3), grey, np.uint8)))


def write_clean(layout: Layout, images: dict[str, bytes]) -> None:
    layout.clean_images.mkdir(parents=True, exist_ok=True)
    rows = []
    for image_id, content in images.items():
        file = layout.clean_images / f"pack_{image_id}.jpg"
        file.write_bytes(content)
        digest = hashlib.sha256(content).hexdigest()
        rows.append(CleanRow("", image_id, "1", layout.relative(file), 0, 0, 0.0, 0.0, digest, ""))
    CLEAN.write(layout.clean_table, rows)


@pytest.fixture
def log(tmp_path, monkeypatch):
    """The log of grey values, a file shared by all processes."""
    file = tmp_path / "greys"
    file.touch()
    monkeypatch.setattr(ocr, "make_engine", lambda name, detection_px: FakeEngine(file))
    monkeypatch.setattr(ocr, "engine_label", lambda name, detection_px: f"drawn at {detection_px}")
    extraction._engine.cache_clear()
    yield file
    extraction._engine.cache_clear()


@pytest.fixture
def layout(tmp_path):
    return Layout(tmp_path / "root")


@pytest.fixture(autouse=True, scope="module")
def _plugins():
    """Load PIL's plugins before a test; on a busy machine loading exceeds the timeout."""
    Image.init()


def run(layout, **config):
    return read_text.run(read_text.Config(root=layout.root, **config), layout)


def greys(log):
    found = Counter(int(line) for line in log.read_text().split())
    log.write_text("")
    return found


def test_one_row_per_image_and_a_second_run_reads_only_new_images(layout, log):
    write_clean(layout, {"1_1": image_of(100), "1_2": image_of(BLANK), "1_10": image_of(120)})
    summary = run(layout)
    assert summary.counts == {"read": 2, "no_text": 1, "unreadable": 0, "failed": 0}
    rows = read_pack_text(layout.pack_text)
    assert [(key, row.status, row.texts) for key, row in rows.items()] == [
        ("1_1", "read", ("grey 100",)), ("1_2", "no_text", ()), ("1_10", "read", ("grey 120",))
    ]  # fmt: skip
    assert rows["1_1"].file == "clean_dataset/images/pack_1_1.jpg"
    assert rows["1_1"].sha256 == hashlib.sha256(image_of(100)).hexdigest()
    assert greys(log) == {100: 1, BLANK: 1, 120: 1}
    first = layout.pack_text.read_bytes()
    # Same content under another name, one image removed, one added.
    assert run(layout).results["new"] == 0
    assert layout.pack_text.read_bytes() == first
    write_clean(layout, {"1_1": image_of(100), "2_1": image_of(120), "2_2": image_of(130)})
    assert run(layout).results["new"] == 1
    assert list(read_pack_text(layout.pack_text)) == ["1_1", "2_1", "2_2"]
    assert greys(log) == {130: 1}
    assert run(layout, reread=True).results["new"] == 3


def test_images_of_the_same_bytes_are_read_once(layout, log):
    write_clean(layout, {f"1_{n}": image_of(100) for n in range(1, 5)})
    assert run(layout).counts["read"] == 4
    assert greys(log) == {100: 1}


def test_crash_timeout_and_error_become_rows_and_the_run_continues(layout, log, monkeypatch):
    monkeypatch.setattr(worker_pool, "_TIMEOUT_S", 2)
    write_clean(layout, {
        "1_1": image_of(KILLS), "1_2": image_of(100), "1_3": image_of(HANGS), "1_4": image_of(RAISES),
        "1_5": b"<html>", "1_6": b"", "1_7": image_of(110)[:-20], "1_8": image_of(120),
    })  # fmt: skip
    (layout.clean_images / "pack_1_8.jpg").unlink()
    summary = run(layout)
    rows = read_pack_text(layout.pack_text)
    assert {key: (row.status, row.reason) for key, row in rows.items()} == {
        "1_1": ("failed", "crashed the reader or took too long"),
        "1_2": ("read", ""),
        "1_3": ("failed", "crashed the reader or took too long"),
        "1_4": ("failed", "error: no such line"),
        "1_5": ("unreadable", "not_an_image"),
        "1_6": ("unreadable", "empty"),
        "1_7": ("unreadable", rows["1_7"].reason),
        "1_8": ("unreadable", "missing_file"),
    }
    assert rows["1_7"].reason.startswith("truncated")
    assert summary.counts == {"read": 1, "no_text": 0, "unreadable": 4, "failed": 3}
    assert sum(summary.counts.values()) == summary.results["seen"] == 8
    greys(log)
    # Failed images are read again in the next run; broken and missing ones are not sent to the engine.
    run(layout)
    assert set(greys(log)) == {KILLS, HANGS, RAISES}


def test_interrupted_run_resumes(layout, log, monkeypatch):
    write_clean(layout, {f"1_{n}": image_of(100 + n) for n in range(30)})
    stored = []
    put = extraction.OcrCache.put

    def put_eleven(self, found):
        if len(stored) == 11:
            raise KeyboardInterrupt
        stored.append(found)
        put(self, found)

    monkeypatch.setattr(extraction.OcrCache, "put", put_eleven)
    with pytest.raises(KeyboardInterrupt):
        run(layout)
    assert not layout.pack_text.exists()
    monkeypatch.setattr(extraction.OcrCache, "put", put)
    greys(log)
    assert run(layout).results["new"] == 19
    assert not set(greys(log)) & {100 + int(one.image_id.partition("_")[2]) for one in stored}
    assert len(read_pack_text(layout.pack_text)) == 30


def test_folder_is_read_with_subfolders_to_the_given_output(layout, log, tmp_path):
    folder = tmp_path / "photos"
    (folder / "deep").mkdir(parents=True)
    (folder / "b.JPG").write_bytes(image_of(100))
    (folder / "deep" / "a.png").write_bytes(image_of(110))
    (folder / "notes.txt").write_text("no image")
    summary = run(layout, images=folder, output=tmp_path / "texts.jsonl")
    assert summary.counts["read"] == 2
    assert list(read_pack_text(tmp_path / "texts.jsonl")) == ["b.JPG", "deep/a.png"]
    assert not layout.pack_text.exists()
    assert not read_text.Config(images=folder).writes_summary
    with pytest.raises(StageError, match="needs --output"):
        run(layout, images=folder)
    with pytest.raises(MissingInputError, match="folder of images"):
        run(layout, images=tmp_path / "none", output=tmp_path / "texts.jsonl")
    with pytest.raises(StageError, match="no images"):
        run(layout, images=(folder / "deep" / "a.png").parent.parent.parent / "root", output=tmp_path / "t.jsonl")


def test_missing_table_names_the_stage_before(layout, log):
    with pytest.raises(MissingInputError, match=r"src/clean\.py"):
        run(layout)


def test_damaged_cache_is_replaced(layout, log, caplog):
    write_clean(layout, {"1_1": image_of(100)})
    layout.ocr_cache.parent.mkdir(parents=True)
    layout.ocr_cache.write_bytes(b"no database at all, but long enough to be examined" * 20)
    assert run(layout).results["new"] == 1
    assert "all images are read again" in caplog.text
    assert run(layout).results["new"] == 0


def test_invalid_cache_entry_is_read_again(layout, log, caplog):
    write_clean(layout, {"1_1": image_of(100)})
    run(layout)
    with contextlib.closing(sqlite3.connect(layout.ocr_cache)) as database, database:
        database.execute("update pack_text set found = '{broken'")
    assert run(layout).results["new"] == 1
    assert "read again" in caplog.text


def test_missing_engine_ends_the_stage_with_the_remedy(layout, log, monkeypatch):
    def absent(name, detection_px):
        raise MissingInputError("library of the OCR", "onnxruntime", "Install it.")

    monkeypatch.setattr(ocr, "make_engine", absent)
    write_clean(layout, {f"{n}_1": image_of(100 + n) for n in range(3)})
    with pytest.raises(MissingInputError, match=r"onnxruntime\nInstall it\."):
        run(layout)


def test_detection_px_is_part_of_the_cache_key_and_has_a_minimum(layout, log):
    write_clean(layout, {"1_1": image_of(100)})
    assert [run(layout, detection_px=n_px).results["new"] for n_px in (50_000, 60_000, 50_000)] == [1, 1, 0]
    with pytest.raises(StageError, match="--detection-px 9999 is too few"):
        run(layout, detection_px=9_999)


def test_engine_is_part_of_the_cache_key(layout, log, monkeypatch):
    write_clean(layout, {"1_1": image_of(100)})
    run(layout)
    monkeypatch.setattr(ocr, "engine_label", lambda name, detection_px: f"drawn by {name}")
    assert run(layout, ocr="tesseract").results["new"] == 1
    assert read_pack_text(layout.pack_text)["1_1"].engine == "drawn by tesseract"
