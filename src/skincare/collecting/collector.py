"""One product at a time: its page is fetched and read, its images are fetched and put on disk.

Everything learned goes to the ScrapeState, so that a product can be taken up where it was left.
"""

import hashlib
import logging
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from skincare import image_names, urls
from skincare.catalogue import Product
from skincare.collecting.fetch_errors import FetchError
from skincare.collecting.fetch_record import FetchRecord
from skincare.collecting.http_client import HttpClient, HttpResponse
from skincare.collecting.scrape_state import Failure, SavedImage, ScrapeState
from skincare.collecting.scrape_work import WorkItem
from skincare.collecting.sources import DEFAULT_SOURCE, source_named
from skincare.collecting.sources.source import ParsedProduct, Source, page_record
from skincare.file_formats import sniff_format
from skincare.files import write_bytes
from skincare.images import BrokenImageError, decode, displayed_size, encode_jpeg
from skincare.paths import Layout

logger = logging.getLogger(__name__)

# Some ten times what real pages and images have.
MAX_PAGE_BYTES: Final = 16_000_000
MAX_IMAGE_BYTES: Final = 32_000_000
MAX_IMAGES: Final = 50


@dataclass(frozen=True)
class UrlMapping:
    """Where products are fetched from: at their own address, or at a stand-in's.

    What is written down is always the product's own address, so that a stand-in's port leaves no trace.
    """

    base_url: str | None = None
    # Further addresses that it stands in for: those of sources that keep pages and images apart.
    origins: tuple[str, ...] = ()

    def fetch_url(self, url: str, product: Product | None = None) -> str:
        """Return the address to ask for a page or image, of the product where it is one's."""
        origins = {*self.origins, urls.origin(product.url)} if product else set(self.origins)
        if self.base_url and urls.origin(url) in origins:
            return urls.move(url, urls.origin(url), self.base_url)
        return url

    def recorded_url(self, url: str, product: Product) -> str:
        """Return the address as the tables have it."""
        return urls.move(url, self.base_url, urls.origin(product.url)) if self.base_url else url


@dataclass(frozen=True)
class Collector:
    """Collects products into a layout; safe to use from many threads for different products."""

    client: HttpClient
    state: ScrapeState
    layout: Layout
    url_mapping: UrlMapping
    default_source: str = DEFAULT_SOURCE

    def collect(self, item: WorkItem) -> Failure | None:
        """Bring one product to its end, from its page or, where that is already read, from its pending images."""
        product = item.product
        failure = None if item.is_listed else self._list_images(product)
        if failure is None:
            self.save_images(product)
            if any(image.status == "scraped" for image in self.state.images(product.product_id)):
                self.state.finish_product(product.product_id)
                return None
            failure = Failure("no_image_saved")
        logger.info("%s: %s %s", product.url, failure.reason, failure.detail)
        self.state.fail_product(product.product_id, failure)
        return failure

    def get_page(self, product: Product, previous: FetchRecord | None = None) -> HttpResponse:
        """Ask for the page of a product; raises FetchError."""
        url = self.source_of(product).page_url(product)
        return self.client.get(self.url_mapping.fetch_url(url, product), MAX_PAGE_BYTES, previous)

    def get_image(self, product: Product, source_url: str, previous: FetchRecord | None = None) -> HttpResponse:
        """Ask for an image of a product; raises FetchError."""
        return self.client.get(self.url_mapping.fetch_url(source_url, product), MAX_IMAGE_BYTES, previous)

    def _list_images(self, product: Product) -> Failure | None:
        try:
            response = self.get_page(product)
        except FetchError as error:
            return failure_of(error)
        found = self.read(product, response)
        if found.failure is None:
            record = page_record(self.source_of(product).name, found)
            self.state.list_images(product.product_id, found.images, record, response.fetch_record)
        return found.failure

    def read(self, product: Product, response: HttpResponse) -> ParsedProduct:
        """Return what a page says of its product, with one image more than are taken where there are more."""
        found = self.source_of(product).read(response.content, response.url, product)
        if found.failure:
            is_elsewhere = found.failure.reason == "redirected_away"
            detail = self.url_mapping.recorded_url(response.url, product) if is_elsewhere else found.failure.detail
            return replace(found, failure=Failure(found.failure.reason, detail, response.fetch_record))
        listed = (
            replace(one, url=self.url_mapping.recorded_url(one.url, product)) for one in found.images[: MAX_IMAGES + 1]
        )
        return replace(found, images=tuple(listed))

    def source_of(self, product: Product) -> Source:
        """Return the source that knows the product."""
        return source_named(product.source or self.default_source)

    def save_images(self, product: Product) -> None:
        """Fetch the pending images of a product."""
        for image in self.state.images(product.product_id):
            if image.status == "pending":
                self._save_image(product, image.n, image.source_url)

    def _save_image(self, product: Product, n: int, source_url: str) -> None:
        if n > MAX_IMAGES:
            too_many = Failure("too_many_images", f"only the first {MAX_IMAGES} are taken")
            self.state.fail_image(product.product_id, n, too_many)
            return
        path = self.path(product, n)
        try:
            response = self.get_image(product, source_url)
            content, width, height = as_jpeg(response)
        except FetchError as error:
            failure = failure_of(error)
        except BrokenImageError as error:
            failure = Failure(error.reason, response.content_type[:100], response.fetch_record)
        else:
            saved = self.save(content, width, height, path)
            self.state.save_image(product.product_id, n, saved, response.fetch_record)
            return
        # A process killed between file and row can have left one.
        path.unlink(missing_ok=True)
        self.state.fail_image(product.product_id, n, failure)

    def path(self, product: Product, n: int) -> Path:
        """Return where the n-th image of a product lies."""
        return self.layout.product_images / image_names.file_name(product.slug, product.product_id, n)

    def save(self, content: bytes, width: int, height: int, path: Path) -> SavedImage:
        """Put an image on disk."""
        write_bytes(path, content)
        return SavedImage(self.layout.relative(path), width, height, len(content), hashlib.sha256(content).hexdigest())


def as_jpeg(response: HttpResponse) -> tuple[bytes, int, int]:
    """Return the image as JPEG with its width and height; raises BrokenImageError where it is none.

    A JPEG stays as it was served, even if its end is missing: judging images is the work of clean.py.
    """
    if sniff_format(response.content) == "JPEG":
        return response.content, *displayed_size(response.content)
    image = decode(response.content)
    return encode_jpeg(image), image.width, image.height


def failure_of(error: FetchError) -> Failure:
    """Return an error as the state keeps it."""
    return Failure(error.reason, error.detail, error.fetch_record)
