"""For any response of a shop, every product and image ends with a file or a reason, without an exception."""

import io
import struct
import tempfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from skincare.catalogue import Product
from skincare.collecting import scrape_tables
from skincare.collecting.collector import MAX_IMAGES, MAX_PAGE_BYTES, Collector, UrlMapping
from skincare.collecting.fetch_errors import FetchError
from skincare.collecting.fetch_record import FetchRecord
from skincare.collecting.http_client import HttpResponse
from skincare.collecting.scrape_state import ScrapeState
from skincare.collecting.scrape_work import WorkItem
from skincare.file_formats import sniff_format
from skincare.paths import Layout
from skincare.tables import FAILURES, IMAGES, METADATA
from tests.helpers import noise_image
from tests.test_pages import PAGES, json_ld

SHOP = "https://shop.example"


class FakeHttpClient:
    """Returns a response by URL; an exception is raised instead."""

    def __init__(self, answer_for: Callable[[str], bytes | FetchError], content_type: str = "image/jpeg") -> None:
        self.answer_for = answer_for
        self.content_type = content_type

    def get(self, url: str, max_bytes: int, previous: FetchRecord | None = None) -> HttpResponse:
        answer = self.answer_for(url)
        if isinstance(answer, FetchError):
            raise answer
        if len(answer) > max_bytes:
            raise FetchError("too_large")
        return HttpResponse(url, answer, self.content_type, FetchRecord(200, 1, 0.1))


def encoded(kind: str) -> bytes:
    buffer = io.BytesIO()
    noise_image(12, 9).save(buffer, kind)
    return buffer.getvalue()


def png_header(side: int) -> bytes:
    """Return a PNG whose header declares side x side pixels and which has none."""
    chunks = (b"IHDR" + struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0), b"IDAT" + zlib.compress(b""), b"IEND")
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(chunk) - 4) + chunk + struct.pack(">I", zlib.crc32(chunk)) for chunk in chunks
    )


IMAGE_BYTES = {kind: encoded(kind) for kind in ("JPEG", "PNG", "WEBP", "GIF")}


def product(i: int, slug: str = "x") -> Product:
    return Product(str(i), f"{SHOP}/{slug}/{i}.html", slug, f"P {i}", "Oil")


@contextmanager
def opened(root: Path, products: list[Product]) -> Iterator[tuple[ScrapeState, Layout]]:
    layout = Layout(root)
    with ScrapeState(layout.scrape_state) as state:
        state.set_catalogue(products)
        yield state, layout


def collected(state: ScrapeState, layout: Layout, one: Product, answer_for, **headers: str) -> str:
    """Collect one product, check its rows and files, return its reason or status."""
    Collector(FakeHttpClient(answer_for, **headers), state, layout, UrlMapping()).collect(
        WorkItem(one, is_listed=False)
    )
    query = "SELECT status, reason FROM products WHERE product_id = ?"
    status, reason = next(state.rows(query, one.product_id))
    images = list(state.rows("SELECT status, reason, file, n_bytes FROM images WHERE product_id = ?", one.product_id))
    assert status == ("scraped" if any(image[0] == "scraped" for image in images) else "failed")
    assert (status == "failed") == bool(reason)
    for image_status, image_reason, file, n_bytes in images:
        if image_status == "scraped":
            content = (layout.root / file).read_bytes()
            assert (len(content), sniff_format(content)) == (n_bytes, "JPEG")
        else:
            assert (image_status, bool(image_reason)) == ("failed", True)
    return reason or status


def page_with(paths: list[str]) -> bytes:
    return json_ld({"@type": "Product", "image": paths}).encode()


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        *((content, "scraped") for content in IMAGE_BYTES.values()),
        (b"<html>not found</html>", "not_an_image"),
        (b"", "empty"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "unsupported_format"),
        (png_header(100_000), "too_many_pixels"),
        (png_header(100), "truncated"),
        (FetchError("http_404", status=404), "http_404"),
    ],
    ids=[*IMAGE_BYTES, "html", "nothing", "svg", "bomb", "no-pixels", "dead"],
)
@pytest.mark.parametrize("content_type", ["image/jpeg", "text/html", "application/x-msdownload"])
def test_the_format_follows_from_the_bytes_and_not_from_the_content_type(tmp_path, answer, reason, content_type):
    with opened(tmp_path, [product(1)]) as (state, layout):
        page = page_with(["/a.exe"])
        result = collected(
            state, layout, product(1), lambda url: page if url.endswith(".html") else answer, content_type=content_type
        )
        assert result == ("scraped" if reason == "scraped" else "no_image_saved")
        assert [row[0] for row in state.rows("SELECT reason FROM images")] == ["" if reason == "scraped" else reason]


def test_images_beyond_the_maximum_are_one_failure(tmp_path):
    page = page_with([f"/{i}.jpg" for i in range(10_000)])
    with opened(tmp_path, [product(1)]) as (state, layout):
        collected(state, layout, product(1), lambda url: page if url.endswith(".html") else IMAGE_BYTES["JPEG"])
        reasons = Counter(row[0] for row in state.rows("SELECT reason FROM images"))
    assert reasons == {"": MAX_IMAGES, "too_many_images": 1}


def test_a_page_that_is_too_large_is_a_failure(tmp_path):
    with opened(tmp_path, [product(1)]) as (state, layout):
        assert collected(state, layout, product(1), lambda _: bytes(MAX_PAGE_BYTES + 1)) == "too_large"


REASONS = ("timeout", "http_404", "http_503", "private_address", "robots_disallowed", "too_large", "bad_redirect")
MAGIC = (b"", b"\xff\xd8\xff\xe0", b"\x89PNG\r\n\x1a\n", b"II*\0")
IMAGE_RESPONSES = (
    st.sampled_from([*IMAGE_BYTES.values(), png_header(100_000), IMAGE_BYTES["JPEG"][:200], IMAGE_BYTES["WEBP"][:60]])
    | st.tuples(st.sampled_from(MAGIC), st.binary(max_size=40)).map(b"".join)
    | st.sampled_from(REASONS).map(FetchError)
)
IMAGE_PATHS = st.lists(st.sampled_from(["/a.jpg", "//b.example/b", "/../../c%00.jpg", "/con", "/é" * 300]), max_size=4)

# Half of the pages list images.
PAGE_RESPONSES = st.booleans().flatmap(
    lambda is_a_list: IMAGE_PATHS.map(page_with) if is_a_list else PAGES | st.sampled_from(REASONS).map(FetchError)
)


def check_any_responses(n_shops: int) -> None:
    """Collect products, each with a page and up to three responses for its images; check the tables."""
    products = [product(i) for i in range(3 * n_shops)]
    unused_products = iter(products)
    with tempfile.TemporaryDirectory() as folder, opened(Path(folder), products) as (state, layout):

        @settings(max_examples=n_shops, deadline=None, suppress_health_check=list(HealthCheck), database=None)
        @given(PAGE_RESPONSES, st.lists(IMAGE_RESPONSES, min_size=1, max_size=3))
        def check(page: bytes | str | FetchError, answers: list[bytes | FetchError]) -> None:
            one, remaining = next(unused_products), list(answers)
            first = page.encode("utf-8", "surrogatepass") if isinstance(page, str) else page
            collected(
                state,
                layout,
                one,
                lambda url: first if url == one.url else remaining.pop() if len(remaining) > 1 else remaining[0],
            )

        check()
        n_collected = products.index(next(unused_products))
        IMAGES.write(layout.images_table, scrape_tables.image_rows(state), is_sorted=True)
        METADATA.write(layout.metadata_table, scrape_tables.metadata_rows(state), is_sorted=True)
        FAILURES.write(layout.failures_table, scrape_tables.failure_rows([], state), is_sorted=True)
        counts = scrape_tables.counts(state)
        saved, failures = IMAGES.read(layout.images_table), FAILURES.read(layout.failures_table)
        assert {layout.root / row.file for row in saved} == set(layout.product_images.iterdir())
    assert counts["scraped"] + counts["failed"] == n_collected >= n_shops
    assert len({row.product_id for row in saved}) == counts["scraped"] > n_shops / 20
    assert sum(not row.image_url for row in failures) == counts["failed"] + counts["not_tried"]


def test_any_responses_end_with_a_status() -> None:
    check_any_responses(60)


@pytest.mark.slow
def test_many_generated_responses_end_with_a_status() -> None:
    """In addition to the 5,000 pages of test_pages and the 500 responses of test_http_client."""
    check_any_responses(400)


@pytest.mark.parametrize(
    "answer", [FetchError("http_404", status=404), b"<html>not found</html>"], ids=["dead", "html"]
)
def test_a_failed_image_leaves_no_file_of_an_interrupted_run(tmp_path, answer):
    with opened(tmp_path, [product(1)]) as (state, layout):
        client = FakeHttpClient(lambda url: page_with(["/a.jpg"]) if url.endswith(".html") else answer)
        collector = Collector(client, state, layout, UrlMapping())
        path = collector.path(product(1), 1)
        path.parent.mkdir(parents=True)
        path.write_bytes(b"written by a process that was killed before it recorded the file")
        collector.collect(WorkItem(product(1), is_listed=False))
        assert not path.exists()
