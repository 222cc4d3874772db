"""A scrape that was killed, or met a full or read-only disk, resumes to the output of an uninterrupted one.

The scrapes are real processes, forked from one that has imported the stage, so that each starts in milliseconds.
"""

import errno
import io
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from contextlib import closing, suppress

import pytest
from PIL import Image

import scrape
from skincare import files, stage
from skincare.collecting import collector
from skincare.collecting.scrape_state import ScrapeStateReader
from skincare.errors import StageError
from skincare.paths import REPOSITORY, Layout
from skincare.tables import CATALOGUE, IMAGES, CatalogueRow
from tests.forker import Forker
from tests.helpers import noise_image
from tests.local_server import Handler, LocalServer, Request, ok, serving, status

SHOP = "https://shop.example"
N_PRODUCTS = 40
N_KILLS = 24


def start(forker: Forker, layout: Layout, server: LocalServer, *options: str) -> int:
    return forker.start("--root", layout.root, "--shop-url", server.url, "--delay-s", 0, "--workers", 4, *options)


def slowly(answer: Handler) -> Handler:
    """Delay each response, so that a process can be killed before it arrives."""

    def send(request: Request) -> None:
        time.sleep(0.004)
        answer(request)

    return send


def image(seed: int, kind: str) -> bytes:
    buffer = io.BytesIO()
    Image.Image.save(noise_image(40, 50, seed), buffer, kind)
    return buffer.getvalue()


def stocked() -> dict[str, Handler]:
    """Return products with three images each, with PNGs, missing images and failing pages among them."""
    answers: dict[str, Handler] = {"/p0.html": status(404), "/p1.html": ok(b"<h1>nothing</h1>")}
    for i in range(2, N_PRODUCTS):
        listed = [f"/{i}/{n}.jpg" for n in range(3)]
        block = json.dumps({"@type": "Product", "image": listed})
        answers[f"/p{i}.html"] = slowly(ok(f'<script type="application/ld+json">{block}</script>'.encode()))
        for n, path in enumerate(listed):
            answers[path] = slowly(ok(image(3 * i + n, "PNG" if i % 5 == 0 and n == 1 else "JPEG")))
        if i % 7 == 0:
            answers[listed[2]] = status(404)
    return answers


@pytest.fixture(scope="module")
def forker():
    with closing(Forker("scrape")) as found:
        yield found


def layout_with_catalogue(root) -> Layout:
    layout = Layout(root)
    CATALOGUE.write(layout.catalogue, [CatalogueRow(f"P {i}", f"{SHOP}/p{i}.html", "Oil") for i in range(N_PRODUCTS)])
    return layout


def written(layout: Layout) -> dict[str, bytes]:
    """Return path -> bytes of images and tables; state and log are excluded, since they hold times."""
    found = [*layout.product_images.iterdir(), *layout.images_table.parent.glob("*.csv"), *layout.root.rglob(".*.part")]
    return {layout.relative(path): path.read_bytes() for path in found}


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory, forker) -> dict[str, bytes]:
    layout = layout_with_catalogue(tmp_path_factory.mktemp("uninterrupted"))
    with serving(stocked()) as server:
        start(forker, layout, server)
        assert forker.exit_code() == 0
    assert set(server.count.values()) == {1}, "each URL is requested once"
    return written(layout)


def done(layout: Layout) -> set[str]:
    """Return the URL paths recorded as done; check that each recorded image is on disk."""
    if not layout.scrape_state.exists():
        return set()
    with ScrapeStateReader(layout.scrape_state) as state, suppress(StageError):  # killed before the tables were created
        next(state.rows("SELECT position FROM products"), None)
        pages = state.rows("SELECT url FROM products WHERE status <> 'pending'")
        images = list(state.rows("SELECT source_url, status, file, n_bytes FROM images WHERE status <> 'pending'"))
        for _, how, file, n_bytes in images:
            assert how == "failed" or (layout.root / file).stat().st_size == n_bytes
        return {url.removeprefix(SHOP) for (url, *_) in [*pages, *images]}
    return set()


@pytest.mark.slow
def test_a_repeatedly_killed_run_equals_an_uninterrupted_one(tmp_path, forker, uninterrupted):
    seed = random.SystemRandom().randrange(2**32)
    print(f"seed {seed}")  # noqa: T201  shown when the test fails
    chance = random.Random(seed)
    layout, counted = layout_with_catalogue(tmp_path), {}
    with serving(stocked()) as server:
        for _ in range(N_KILLS):
            kill_at_some_point(chance, layout, server, forker)
            for path in done(layout):
                counted.setdefault(path, server.count[path])
            for path in layout.product_images.glob("[!.]*"):
                assert path.read_bytes() == uninterrupted[layout.relative(path)], "no image is truncated"
        start(forker, layout, server)
        assert forker.exit_code() == 0
    assert written(layout) == uninterrupted
    assert {path: server.count[path] for path in counted} == counted, "completed URLs are not requested again"
    assert len(counted) > N_PRODUCTS, "the kills were spread over the run"


def changed(answers: dict[str, Handler]) -> dict[str, Handler]:
    """Return the shop after changes: replaced, removed and added images, one page removed and one restored."""
    found = dict(answers)
    for i in range(2, N_PRODUCTS, 3):
        found[f"/{i}/0.jpg"] = slowly(ok(image(1000 + i, "JPEG")))
        found[f"/{i}/3.jpg"] = slowly(ok(image(2000 + i, "WEBP")))
        listed = [f"/{i}/{n}.jpg" for n in ((0, 2) if i % 2 else (3, 0, 1, 2))]
        block = json.dumps({"@type": "Product", "image": listed})
        found[f"/p{i}.html"] = slowly(ok(f'<script type="application/ld+json">{block}</script>'.encode()))
    return {**found, "/p3.html": status(404), "/p1.html": found["/p4.html"]}


@pytest.mark.slow
def test_a_repeatedly_killed_refresh_equals_an_uninterrupted_one(tmp_path, forker):
    seed = random.SystemRandom().randrange(2**32)
    print(f"seed {seed}")  # noqa: T201  shown when the test fails
    chance = random.Random(seed)
    old = layout_with_catalogue(tmp_path / "killed")
    with serving(stocked()) as server:
        start(forker, old, server)
        assert forker.exit_code() == 0
    before = written(old)
    shutil.copytree(tmp_path / "killed", tmp_path / "whole")
    whole = Layout(tmp_path / "whole")
    with serving(changed(stocked())) as server:
        start(forker, whole, server, "--refresh")
        assert forker.exit_code() == 0
        for _ in range(8):
            kill_at_some_point(chance, old, server, forker, "--refresh")
        start(forker, old, server, "--refresh")
        assert forker.exit_code() == 0
    assert written(old) == written(whole)
    assert written(whole) != before


def kill_at_some_point(
    chance: random.Random, layout: Layout, server: LocalServer, forker: Forker, *options: str
) -> None:
    """Kill a run shortly after its start or after up to 15 more requests; it may have ended before."""
    wanted = server.count.total() + chance.choice([0, 5, 10, 15])
    child = start(forker, layout, server, *options)
    deadline = time.monotonic() + 3
    while server.count.total() < wanted and time.monotonic() < deadline:
        time.sleep(0.0005)
    time.sleep(chance.uniform(0, 0.015))
    with suppress(ProcessLookupError):
        os.kill(child, signal.SIGKILL)
    assert forker.exit_code() in (-signal.SIGKILL, 0)


_SMALL_DISK = """
set -e
mount -t tmpfs -o size=8m tmpfs "$1"
mkdir "$1/csv_data"; cp "$2/catalogue.csv" "$1/csv_data/skincare_products_clean.csv"
scrape() { "$4" "$5/src/scrape.py" --root "$1" --shop-url "$3" --delay-s 0; }
head -c 7500000 /dev/zero > "$1/filler"
scrape "$@" 2> "$2/full" && code=0 || code=$?; echo $code
rm "$1/filler"
mount -o remount,ro "$1"
scrape "$@" 2> "$2/read_only" && code=0 || code=$?; echo $code
mount -o remount,rw "$1"
scrape "$@" 2> "$2/mended" && code=0 || code=$?; echo $code
cp -r "$1/product_images" "$1/csv_data" "$2"
"""


def can_mount() -> bool:
    with suppress(OSError):
        return not subprocess.run(["unshare", "-Urm", "true"], capture_output=True, check=False).returncode
    return False


@pytest.mark.slow
@pytest.mark.skipif(
    not can_mount(), reason="mounting a small disk needs user namespaces (unshare -Urm), which are disabled"
)
def test_a_full_or_read_only_disk_is_a_clear_error_without_data_loss(tmp_path, uninterrupted):
    disk, out = tmp_path / "disk", tmp_path / "out"
    disk.mkdir()
    out.mkdir()
    shutil.copy(layout_with_catalogue(tmp_path / "made").catalogue, out / "catalogue.csv")
    with serving(stocked()) as server:
        arguments = [disk, out, server.url, sys.executable, REPOSITORY]
        shell = subprocess.run(
            ["unshare", "-Urm", "sh", "-c", _SMALL_DISK, "sh", *map(str, arguments)],
            capture_output=True, text=True, timeout=120, check=True,
        )  # fmt: skip
    assert shell.stdout.split() == ["1", "1", "0"], (out / "full").read_text() + (out / "mended").read_text()
    full, read_only = (out / "full").read_text(), (out / "read_only").read_text()
    assert "No space left on device" in full or "disk is full" in full
    assert "continue with `python" in full
    assert "Read-only file system" in read_only
    assert "Traceback" not in full + read_only
    assert written(Layout(out)) == uninterrupted
    assert server.count.total() < 1.5 * N_PRODUCTS * 4


@pytest.mark.parametrize("broken", ["image", "table"])
def test_a_failed_write_ends_the_run_and_the_next_run_resumes(tmp_path, monkeypatch, capsys, uninterrupted, broken):
    layout, n_written = layout_with_catalogue(tmp_path), Counter()

    def write(path, content):
        n_written[path.suffix] += 1
        if n_written[path.suffix] > 20:
            raise OSError(errno.ENOSPC, "No space left on device", str(path))
        files.write_bytes(path, content)

    def write_table(self, path, rows, *, is_sorted):
        raise OSError(errno.EROFS, "Read-only file system", str(path))

    with serving(stocked()) as server:
        config = scrape.Config(root=tmp_path, shop_url=server.url, delay_s=0)
        with monkeypatch.context() as patch:
            if broken == "image":
                patch.setattr(collector, "write_bytes", write)
            else:
                patch.setattr(type(IMAGES), "write", write_table)
            assert stage.execute("scrape", config, layout, scrape.run) == 1
        assert "Nothing is lost" in capsys.readouterr().err
        assert not layout.summary("scrape").exists()
        assert stage.execute("scrape", config, layout, scrape.run) == 0
    assert written(layout) == uninterrupted
