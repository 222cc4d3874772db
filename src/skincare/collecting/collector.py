"""Collects one product: fetches and parses its page, then fetches its images and writes them to disk.

Each step is recorded in the ScrapeState, so an interrupted product is resumed where it stopped.
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

# About ten times the largest real pages and images.
MAX_PAGE_BYTES: Final = 16_000_000
MAX_IMAGE_BYTES: Final = 32_000_000
MAX_IMAGES: Final = 50


@dataclass(frozen=True)
class UrlMapping:
    """Maps product URLs to the URLs that are fetched: the same, or the same path on `base_url` (--shop-url).

    Tables always hold the product's own URL, so the output does not depend on `base_url`.
    """

    base_url: str | None = None
    # Further origins that `base_url` replaces: those of sources with separate hosts for pages and images.
    origins: tuple[str, ...] = ()

    def fetch_url(self, url: str, product: Product | None = None) -> str:
        """Return the URL to fetch for the URL of a page or image, of `product` if it belongs to one."""
        origins = {*self.origins, urls.origin(product.url)} if product else set(self.origins)
        if self.base_url and urls.origin(url) in origins:
            return urls.move(url, urls.origin(url), self.base_url)
        return url

    def recorded_url(self, url: str, product: Product) -> str:
        """Return the URL that the tables hold for a fetched URL."""
        return urls.move(url, self.base_url, urls.origin(product.url)) if self.base_url else url


@dataclass(frozen=True)
class Collector:
    """Collects products into a layout; thread-safe for different products."""

    client: HttpClient
    state: ScrapeState
    layout: Layout
    url_mapping: UrlMapping
    default_source: str = DEFAULT_SOURCE

    def collect(self, item: WorkItem) -> Failure | None:
        """Collect one product, from its page or, if that has been read, from its pending images; return its failure."""
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
        """Fetch the page of a product, conditionally with `previous`; raises FetchError."""
        url = self.source_of(product).page_url(product)
        return self.client.get(self.url_mapping.fetch_url(url, product), MAX_PAGE_BYTES, previous)

    def get_image(self, product: Product, source_url: str, previous: FetchRecord | None = None) -> HttpResponse:
        """Fetch an image of a product, conditionally with `previous`; raises FetchError."""
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
        """Parse a page; it lists at most MAX_IMAGES + 1 images, so that a cut is recorded as too_many_images."""
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
        """Return the source of the product."""
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
        # A process killed between writing the file and recording it may have left a file.
        path.unlink(missing_ok=True)
        self.state.fail_image(product.product_id, n, failure)

    def path(self, product: Product, n: int) -> Path:
        """Return the path of the n-th image of a product."""
        return self.layout.product_images / image_names.file_name(product.slug, product.product_id, n)

    def save(self, content: bytes, width: int, height: int, path: Path) -> SavedImage:
        """Write an image and return its record."""
        write_bytes(path, content)
        return SavedImage(self.layout.relative(path), width, height, len(content), hashlib.sha256(content).hexdigest())


def as_jpeg(response: HttpResponse) -> tuple[bytes, int, int]:
    """Return an image as JPEG with its width and height; raises BrokenImageError if it cannot be decoded.

    A JPEG is kept byte for byte, even if truncated: clean.py decides on quality.
    """
    if sniff_format(response.content) == "JPEG":
        return response.content, *displayed_size(response.content)
    image = decode(response.content)
    return encode_jpeg(image), image.width, image.height


def failure_of(error: FetchError) -> Failure:
    """Return a FetchError as the Failure that the state records."""
    return Failure(error.reason, error.detail, error.fetch_record)
