"""The sample shop as a local HTTP server with planted defects, and its ground truth.

with serve(stock(layout, seed=0)) as url:
    ...
"""

import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final
from urllib.parse import urlsplit

from skincare.errors import StageError
from skincare.files import write_json
from skincare.paths import Layout
from skincare.sample import rendering
from skincare.sample.full_packs import stated_absences, with_full_labels
from skincare.sample.products import (
    ORIGIN,
    PAGE_DEFECTS,
    Product,
    ShopImage,
    catalogue_rows,
    expected_outcomes,
    sample_products,
)
from skincare.tables import CATALOGUE, STATED_FACTS, CatalogueRow

logger = logging.getLogger(__name__)

_SLOW_S: Final = 1.0
_ROBOTS: Final = b"User-agent: *\nDisallow: /basket\n"


class _Shop(ThreadingHTTPServer):
    """The server; pages and images by path."""

    daemon_threads = True
    # Ten workers may connect at the same time.
    request_queue_size = 64

    def __init__(self, products: Sequence[Product], port: int) -> None:
        super().__init__(("127.0.0.1", port), _Handler)
        self.lock = threading.Lock()
        self.n_requests: Counter[str] = Counter()
        by_id = {product.product_id: product for product in products}
        self.pages = {product.path: product for product in products}
        self.pages.update({_new_path(product): product for product in products if product.behaviour == "moved"})
        self.images = {rendering.image_path(one, image): (one, image) for one in products for image in one.images}

        @lru_cache(maxsize=256)
        def draw(path: str) -> bytes:
            product, image = self.images[path]
            return rendering.image_bytes(product, image, by_id)

        self.draw: Callable[[str], bytes] = draw

    def count_request(self, path: str) -> int:
        """Return the number of requests for the path, including this one."""
        with self.lock:
            self.n_requests[path] += 1
            return self.n_requests[path]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    # Small responses must not wait for the next packet.
    disable_nagle_algorithm = True
    server: _Shop

    def do_GET(self) -> None:
        """Answer one request."""
        path = urlsplit(self.path).path
        try:
            if path in self.server.pages:
                self._page(self.server.pages[path], path)
            elif path in self.server.images:
                self._image(*self.server.images[path], path)
            elif path == "/robots.txt":
                self._send(200, _ROBOTS, "text/plain")
            elif path == "/":
                self._send(200, rendering.START_PAGE)
            else:
                self._send(404, rendering.ERROR_PAGE)
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True

    def _page(self, product: Product, path: str) -> None:
        nth, behaviour = self.server.count_request(path), product.behaviour
        if behaviour == "slow":
            time.sleep(_SLOW_S)
        if behaviour == "gone":
            self._send(404, rendering.ERROR_PAGE)
        elif behaviour == "unavailable_twice" and nth <= 2:
            self._send(503, b"try again")
        elif behaviour == "busy_once" and nth == 1:
            self._send(429, b"slow down", headers={"Retry-After": "1"})
        elif behaviour == "moved" and path == product.path:
            self._send(301, b"", headers={"Location": _new_path(product)})
        elif behaviour == "moved_to_the_start_page":
            self._send(302, b"", headers={"Location": "/"})
        elif behaviour == "not_found_with_status_200":
            self._send(200, rendering.ERROR_PAGE)
        elif behaviour == "challenge":
            self._send(200, rendering.CHALLENGE_PAGE)
        else:
            self._send(200, rendering.page(product))

    def _image(self, _product: Product, image: ShopImage, path: str) -> None:
        if image.kind == "gone":
            self._send(404, rendering.ERROR_PAGE)
        elif image.kind == "unavailable_twice" and self.server.count_request(path) <= 2:
            self._send(503, b"try again")
        elif image.kind == "html":
            self._send(200, rendering.ERROR_PAGE)
        else:
            # Shops declare all images as JPEG, whatever their format.
            self._send(200, self.server.draw(path), "image/jpeg")

    def _send(
        self, status: int, content: bytes, content_type: str = "text/html; charset=utf-8",
        headers: dict[str, str] | None = None,
    ) -> None:  # fmt: skip
        self.send_response(status)
        for name, value in {
            "Content-Type": content_type,
            "Content-Length": str(len(content)),
            **(headers or {}),
        }.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:
        """Log requests at debug level."""
        logger.debug(format, *args)


@contextmanager
def serve(products: Sequence[Product], port: int = 0) -> Iterator[str]:
    """Run the shop in a thread during a `with` block; yield its URL. Port 0 selects a free port."""
    server = _Shop(products, port)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def stock(layout: Layout, seed: int, *, has_full_labels: bool = False) -> list[Product]:
    """Return the shop's products; write their catalogue and the ground truth to the layout's paths.

    has_full_labels: whether the packs print what `full_packs` gives them; catalogue and ground truth are the same, and
    the fields that these products lack are stated too.
    Raises StageError if there is a table of another shop, which may be the user's only copy.
    """
    if not _is_ours(layout):
        for table in (layout.catalogue, *((layout.stated_facts,) if has_full_labels else ())):
            if table.is_file():
                raise StageError(
                    f"{table} is not the sample shop's: take another --root, or move it away if you do not need it"
                )
    products = sample_products(seed)
    # Written first: a catalogue without the ground truth counts as the user's.
    write_json(layout.shop_truth, {"seed": seed, "origin": ORIGIN, **truth(products)})
    CATALOGUE.write(layout.catalogue, [CatalogueRow(**row) for row in catalogue_rows(products, seed)])
    if has_full_labels:
        products = with_full_labels(products)
        STATED_FACTS.write(layout.stated_facts, stated_absences(products))
    return products


def _is_ours(layout: Layout) -> bool:
    """Return whether `stock` wrote the catalogue: all its products are on the shop's host."""
    if not layout.shop_truth.is_file() or not layout.catalogue.is_file():
        return False
    lines = layout.catalogue.read_text(encoding="utf-8", errors="replace").splitlines()[1:]
    return all(ORIGIN in line for line in lines)


def truth(products: Sequence[Product]) -> dict[str, Any]:
    """Return the planted defects and the expected outcome of every product and image, in JSON types."""
    outcomes = expected_outcomes(products)
    read = [one for one in products if _page_outcome(one) in ("scraped", "no_image_saved")]
    return {
        "products": {
            one.product_id: {"category": one.category, "behaviour": one.behaviour, "ends": _page_outcome(one)}
            for one in products
        },
        "images": {
            image_id: {
                "kind": image.kind,
                "ends": outcomes[image_id],
                "copy_of": "{}_{}".format(*image.copy_of) if image.copy_of else "",
            }
            for one in read
            for image in one.images
            if (image_id := f"{one.product_id}_{image.n}")
        },
    }


def _page_outcome(product: Product) -> str:
    return "scraped" if product.behaviour == "fine" else PAGE_DEFECTS[product.behaviour][1]


def _new_path(product: Product) -> str:
    slug = product.path.strip("/").rpartition("/")[0]
    return f"/p/{slug}/{product.product_id}/"
