"""Refresh of collected products: unchanged pages and images are kept, changed ones are replaced.

Conditional requests send the validators (ETag, Last-Modified) of the last fetch. A page or image that the shop has
removed is counted as gone, and its files are kept. Image ids do not change; new images of a page get the next numbers.
An interrupted refresh is resumed; after a complete one, the next refresh starts with all products.
"""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass

from skincare.catalogue import Product
from skincare.collecting.collector import Collector, as_jpeg, failure_of
from skincare.collecting.fetch_errors import FetchError
from skincare.collecting.fetch_record import FetchRecord
from skincare.collecting.scrape_state import Change, Failure, ImageRecord, ListedImage, ScrapeState, ScrapeStateReader
from skincare.collecting.scrape_work import WorkItem
from skincare.collecting.sources.source import page_record
from skincare.images import BrokenImageError


def begin(state: ScrapeState) -> None:
    """Mark all collected products and images as stale, unless an earlier refresh is incomplete."""
    if next(state.rows("SELECT 1 FROM products WHERE is_stale AND position IS NOT NULL LIMIT 1"), None):
        return
    with state.transaction() as connection:
        connection.execute("UPDATE images SET change = '', is_stale = (status = 'scraped')")
        connection.execute("UPDATE products SET change = '', is_stale = (status = 'scraped' AND position IS NOT NULL)")


def figures(state: ScrapeStateReader) -> dict[str, dict[str, int]]:
    """Return the number of products and of images that are unchanged, changed, gone or failed."""
    return {
        table: dict(
            state.rows(
                f"SELECT {table}.change, COUNT(*) FROM {table} {joined} "
                f"WHERE position IS NOT NULL AND {table}.change <> '' GROUP BY 1 ORDER BY 1"
            )
        )
        for table, joined in (("products", ""), ("images", "JOIN products USING (product_id)"))
    }


@dataclass(frozen=True)
class Refresher:
    """Collects unfinished products and refreshes stale ones."""

    collector: Collector

    def process(self, item: WorkItem) -> Failure | None:
        """Process one product; return the failure of a fetch, None for a page or image that is gone."""
        failure = self.collector.collect(item) if item.is_open else None
        return self._refresh(item.product) if item.is_stale and failure is None else failure

    def _refresh(self, product: Product) -> Failure | None:
        change, failure = self._refresh_page(product)
        if change in ("unchanged", "changed"):
            for image in self.collector.state.images(product.product_id):
                if image.is_stale:
                    self._refresh_image(product, image)
            self.collector.save_images(product)
        _end_product(self.collector.state, product.product_id, change)
        return failure

    def _refresh_page(self, product: Product) -> tuple[Change, Failure | None]:
        collector, previous = self.collector, _page_fetch_record(self.collector.state, product.product_id)
        try:
            response = collector.get_page(product, previous)
        except FetchError as error:
            return _change_of(error)
        if response.is_not_modified:
            return "unchanged", None
        found = collector.read(product, response)
        if found.failure:
            return ("failed", found.failure) if found.failure.reason == "challenge" else ("gone", None)
        record = page_record(collector.source_of(product).name, found)
        is_changed = _relist(collector.state, product.product_id, found.images, record, response.fetch_record)
        return "changed" if is_changed else "unchanged", None

    def _refresh_image(self, product: Product, image: ImageRecord) -> None:
        state, product_id = self.collector.state, product.product_id
        try:
            response = self.collector.get_image(product, image.source_url, image.fetch_record)
            content, width, height = (b"", 0, 0) if response.is_not_modified else as_jpeg(response)
        except FetchError as error:
            _end_image(state, product_id, image.n, _change_of(error)[0], image.fetch_record)
            return
        except BrokenImageError:
            _end_image(state, product_id, image.n, "failed", image.fetch_record)
            return
        is_same = response.is_not_modified or hashlib.sha256(content).hexdigest() == image.saved.sha256
        if not is_same:
            # Until the new row is written, neither the old row nor the new file is valid.
            _reopen_image(state, product_id, image.n)
            saved = self.collector.save(content, width, height, self.collector.path(product, image.n))
            state.save_image(product_id, image.n, saved, response.fetch_record)
        _end_image(
            state,
            product_id,
            image.n,
            "unchanged" if is_same else "changed",
            _latest_validators(response.fetch_record, image.fetch_record),
        )


def _change_of(error: FetchError) -> tuple[Change, Failure | None]:
    """Classify an error as gone (404, 410) or failed; only the latter is a failure of the host."""
    return ("gone", None) if error.status in (404, 410) else ("failed", failure_of(error))


def _page_fetch_record(state: ScrapeState, product_id: str) -> FetchRecord:
    query = "SELECT http_status, attempts, seconds, etag, last_modified FROM products WHERE product_id = ?"
    return FetchRecord(*next(state.rows(query, product_id)))


def _relist(
    state: ScrapeState, product_id: str, listed: Iterable[ListedImage], record: str, fetch_record: FetchRecord
) -> bool:
    """Record the current images and metadata of a page; return whether they differ from the recorded ones."""
    known = {image.source_url: image.n for image in state.images(product_id)}
    now = {one.url: one for one in listed}
    new = [one for url, one in now.items() if url not in known]
    gone = [n for url, n in known.items() if url not in now]
    with state.transaction() as connection:
        connection.executemany(
            "UPDATE images SET is_stale = 0, change = 'gone' WHERE product_id = ? AND n = ?",
            [(product_id, n) for n in gone],
        )
        connection.executemany(
            "INSERT INTO images (product_id, n, source_url, licence, attribution) VALUES (?, ?, ?, ?, ?)",
            [
                (product_id, n, one.url, one.licence, one.attribution)
                for n, one in enumerate(new, start=max(known.values(), default=0) + 1)
            ],
        )
        # New images reopen the product, also for a run without --refresh.
        old_record = connection.execute("SELECT page FROM products WHERE product_id = ?", (product_id,)).fetchone()[0]
        connection.execute(
            "UPDATE products SET status = ?, page = ?, etag = ?, last_modified = ? WHERE product_id = ?",
            ("listed" if new else "scraped", record, fetch_record.etag, fetch_record.last_modified, product_id),
        )
    return bool(new or gone or old_record != record)


def _reopen_image(state: ScrapeState, product_id: str, n: int) -> None:
    with state.transaction() as connection:
        connection.execute("UPDATE images SET status = 'pending' WHERE product_id = ? AND n = ?", (product_id, n))
        connection.execute("UPDATE products SET status = 'listed' WHERE product_id = ?", (product_id,))


def _end_image(state: ScrapeState, product_id: str, n: int, change: Change, validators: FetchRecord) -> None:
    with state.transaction() as connection:
        connection.execute(
            "UPDATE images SET is_stale = 0, change = ?, etag = ?, last_modified = ? WHERE product_id = ? AND n = ?",
            (change, validators.etag, validators.last_modified, product_id, n),
        )


def _end_product(state: ScrapeState, product_id: str, change: Change) -> None:
    with state.transaction() as connection:
        connection.execute("UPDATE images SET is_stale = 0 WHERE product_id = ?", (product_id,))
        connection.execute(
            "UPDATE products SET status = 'scraped', is_stale = 0, change = ? WHERE product_id = ?",
            (change, product_id),
        )


def _latest_validators(new: FetchRecord, old: FetchRecord) -> FetchRecord:
    """Return the record with the validators for the next request: the old ones if the response has none."""
    return new if new.conditional_headers else old
