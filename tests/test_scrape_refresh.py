"""Refresh: unchanged is kept, changed is replaced, gone is kept and counted."""

import hashlib
import io
import json

import pytest

import scrape
from skincare.collecting.fetch_record import FetchRecord
from skincare.collecting.scrape_state import ScrapeState
from skincare.errors import StageError
from skincare.paths import Layout
from skincare.tables import CATALOGUE, IMAGES, CatalogueRow
from tests.helpers import noise_image
from tests.local_server import Handler, Request, ok, serving, status

N_PRODUCTS = 5


def tagged(content: bytes, **headers: str) -> Handler:
    """Answer 304 to those who have the content already, by its tag or, without one, by its date."""
    tag, date = f'"{abs(hash(content))}"', "Mon, 23 Nov 2026 12:00:00 GMT"
    marks = headers or {"ETag": tag, "Last_Modified": date}

    def answer(request: Request) -> None:
        has = request.headers.get("If-None-Match") == tag or (
            "ETag" not in marks and request.headers.get("If-Modified-Since") == marks.get("Last_Modified")
        )
        request.reply(b"" if has else content, 304 if has else 200, **marks)

    return answer


def jpeg(seed: int) -> bytes:
    buffer = io.BytesIO()
    noise_image(20, 30, seed).save(buffer, "JPEG")
    return buffer.getvalue()


def page(*paths: str) -> bytes:
    return f'<script type="application/ld+json">{json.dumps({"@type": "Product", "image": paths})}</script>'.encode()


@pytest.fixture
def answers() -> dict[str, Handler]:
    found = {}
    for i in range(N_PRODUCTS):
        found[f"/p{i}.html"] = tagged(page(f"/{i}/a.jpg", f"/{i}/b.jpg"))
        found |= {f"/{i}/a.jpg": tagged(jpeg(2 * i)), f"/{i}/b.jpg": tagged(jpeg(2 * i + 1))}
    return found


@pytest.fixture
def layout(tmp_path) -> Layout:
    found = Layout(tmp_path)
    rows = [CatalogueRow(f"P {i}", f"https://shop.example/p{i}.html", "Oil") for i in range(N_PRODUCTS)]
    CATALOGUE.write(found.catalogue, rows)
    return found


def run(layout: Layout, server, **config):
    return scrape.run(scrape.Config(root=layout.root, shop_url=server.url, delay_s=0, **config), layout)


def test_not_modified_changes_nothing(layout, answers):
    answers["/p1.html"] = tagged(page("/1/a.jpg", "/1/b.jpg"), Last_Modified="Mon, 23 Nov 2026 12:00:00 GMT")
    answers["/1/a.jpg"] = ok(jpeg(2))  # no marks at all: sent again, found to be the same
    with serving(answers) as server:
        run(layout, server)
        before = layout.images_table.read_bytes(), {p: p.stat().st_mtime_ns for p in layout.product_images.iterdir()}
        server.headers_seen.clear()
        results = run(layout, server, refresh=True).results
    assert results["refresh"] == {"products": {"unchanged": N_PRODUCTS}, "images": {"unchanged": 2 * N_PRODUCTS}}
    assert (
        layout.images_table.read_bytes(),
        {p: p.stat().st_mtime_ns for p in layout.product_images.iterdir()},
    ) == before
    conditional = [h for h in server.headers_seen if "If-None-Match" in h or "If-Modified-Since" in h]
    assert len(conditional) == 3 * N_PRODUCTS - 1


def test_changed_images_are_replaced_new_ones_added_gone_ones_kept(layout, answers):
    with serving(answers) as server:
        run(layout, server)
        before = {row.image_id: row for row in IMAGES.read(layout.images_table)}
        server.answers |= {
            "/0/a.jpg": tagged(jpeg(100)),
            "/0/b.jpg": status(404),
            "/p1.html": tagged(page("/1/c.jpg", "/1/a.jpg")),
            "/1/c.jpg": tagged(jpeg(101)),
            "/p2.html": status(410),
            "/3/a.jpg": ok(b"<html>no image today</html>"),
            "/p4.html": ok(b"<title>Just a moment...</title>"),
        }
        results = run(layout, server, refresh=True).results
        n_before = server.count.total()
        run(layout, server)
    assert server.count.total() == n_before, "without --refresh nothing is fetched again"
    assert results["refresh"] == {
        "products": {"changed": 1, "failed": 1, "gone": 1, "unchanged": 2},
        "images": {"changed": 1, "failed": 1, "gone": 2, "unchanged": 2},
    }
    after = {row.image_id: row for row in IMAGES.read(layout.images_table)}
    assert after.keys() == before.keys() | {"1_3"}
    assert {i for i in before if before[i] != after[i]} == {"0_1"}
    assert (layout.root / after["0_1"].file).read_bytes() == jpeg(100)
    assert (layout.root / after["1_3"].file).read_bytes() == jpeg(101)
    assert all((layout.root / row.file).stat().st_size == row.n_bytes for row in after.values())


def test_an_interrupted_refresh_resumes_and_the_next_refreshes_all(layout, answers):
    with serving(answers) as server:
        run(layout, server)
        n_before = server.count.copy()
        assert run(layout, server, refresh=True, limit=2).results["refresh"]["products"] == {"unchanged": 2}
        run(layout, server, refresh=True)
        assert {server.count[path] - n_before[path] for path in answers} == {1}
        run(layout, server, refresh=True)
        assert {server.count[path] - n_before[path] for path in answers} == {2}


@pytest.mark.parametrize("same_size", [True, False])
def test_killed_between_file_and_row_no_row_vouches_for_another_file(layout, answers, monkeypatch, same_size):
    old, new = jpeg(0), jpeg(100)
    if same_size:
        size = max(len(old), len(new))
        old, new = old.ljust(size, b"\0"), new.ljust(size, b"\0")
    answers["/0/a.jpg"] = tagged(old)
    with serving(answers) as server:
        run(layout, server)
        answers["/0/a.jpg"] = tagged(new)
    with serving(answers) as server:
        monkeypatch.setattr(ScrapeState, "save_image", _killed)
        with pytest.raises(_KilledError):
            run(layout, server, refresh=True)
        assert (layout.product_images / "p_0_1.jpg").read_bytes() == new, "killed after the file, before its row"
        monkeypatch.undo()
        run(layout, server)
    for row in IMAGES.read(layout.images_table):
        assert hashlib.sha256((layout.root / row.file).read_bytes()).hexdigest() == row.sha256, row.image_id


class _KilledError(RuntimeError):
    """What ends a run in the middle."""


def _killed(*_, **__) -> None:
    raise _KilledError


def test_refresh_and_retry_are_one_after_the_other(layout):
    with pytest.raises(StageError, match="one after the other"):
        scrape.run(scrape.Config(root=layout.root, refresh=True, retry_failed=True), layout)


@pytest.mark.parametrize(
    ("etag", "last_modified", "conditional_headers"),
    [
        ('W/"a-1"', "Mon, 23 Nov 2026 12:00:00 GMT", ["If-None-Match", "If-Modified-Since"]),
        ('"x"', "", ["If-None-Match"]),
        ("unquoted", "x" * 100, []),
        ('"a\r\nX: y"', "a\r\nX: y", []),
        ('"' + "x" * 300 + '"', "é", []),
    ],
)
def test_only_validators_that_are_safe_to_send_are_kept(etag, last_modified, conditional_headers):
    headers = {"ETag": etag, "Last-Modified": last_modified}
    assert list(FetchRecord.from_headers(headers).conditional_headers) == conditional_headers
