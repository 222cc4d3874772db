"""Collect the photos of a catalogue's products from the shop's pages.

    python src/scrape.py --contact you@example.org
    python src/scrape.py --shop-url http://127.0.0.1:8000      from a stand-in, such as the sample shop

Reads csv_data/skincare_products_clean.csv. Writes product_images/, csv_data/images_id_full.csv (the pictures that are
on disk) and csv_data/scrape_failures.csv (what could not be had, with a reason). csv_data/scrape_state.sqlite knows
every product and picture: stop the run whenever you like, the same command goes on and fetches nothing twice.

Time: with the default delay about half an hour for the 1,126 pages of the real catalogue and their pictures; the
sample's 200 products take seconds.
"""

import ipaddress
import logging
from collections import Counter
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from tqdm import tqdm

from skincare import reference, scrape_tables, stage, urls
from skincare.catalogue import Catalogue, Product, read_products
from skincare.collector import Collector, Shop
from skincare.errors import StageError
from skincare.paths import Layout
from skincare.runlog import Summary
from skincare.scrape_state import Failure, ScrapeState
from skincare.tables import FAILURES, IMAGES
from skincare.web import Web

logger = logging.getLogger(__name__)

# So many in a row that the shop, the network or our welcome is gone, and more requests would only annoy.
MAX_TROUBLE_IN_A_ROW: Final = 50
_TROUBLE: Final = {"connection_error", "timeout", "too_slow", "challenge", "http_403", "http_429"}


@dataclass(frozen=True, kw_only=True)
class Config(stage.StageConfig):
    """What to collect, from where, and how politely."""

    catalogue: Path | None = None
    """Catalogue to read instead of csv_data/skincare_products_clean.csv."""
    shop_url: str = ""
    """Fetch from this scheme and host instead of the products' own; a loopback host implies --allow-private."""
    workers: int = 10
    """Products that are worked on at the same time."""
    delay_s: float = 0.5
    """Least time between two requests to one host; a longer crawl-delay in its robots.txt wins."""
    contact: str = ""
    """Mail or web address for the user agent, so that the shop can tell you if you disturb."""
    retry_failed: bool = False
    """Try just the products and pictures that failed before."""
    limit: int | None = None
    """Work on at most so many products in this run."""
    allow_private: bool = False
    """Also fetch from loopback and private addresses."""


def run(config: Config, layout: Layout) -> Summary:
    """Collect what is not collected yet, then write the tables from the state."""
    _check(config)
    catalogue = read_products(config.catalogue or layout.catalogue)
    for problem in catalogue.problems:
        logger.warning("catalogue row %d: %s: %s", problem.row, problem.reason, problem.detail)
    with ScrapeState(layout.scrape_state) as state:
        _remove_leftovers(layout)
        todo = _todo(config, catalogue, state, layout)
        n_requests = _collect(config, todo, state, layout)
        return _write(catalogue, state, layout, n_requests)


def _check(config: Config) -> None:
    if config.workers < 1 or config.delay_s < 0 or (config.limit is not None and config.limit < 0):
        raise StageError("--workers must be at least 1, --delay-s and --limit at least 0")
    if not (config.contact.isascii() and config.contact.isprintable()):
        raise StageError("--contact must be plain text: it is sent in a header")
    if config.shop_url:
        _stand_in(config)
    elif not config.contact:
        logger.warning("no --contact given: a shop that is disturbed by this run can only block it")


def _stand_in(config: Config) -> str | None:
    if not config.shop_url:
        return None
    try:
        return urls.origin(config.shop_url)
    except ValueError as error:
        raise StageError(f"--shop-url must be like http://127.0.0.1:8000 ({error})") from error


def _is_loopback(url: str) -> bool:
    host = urlsplit(url).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _remove_leftovers(layout: Layout) -> None:
    """Remove the half-written files of a killed run; the state's lock says that no other run is writing."""
    for leftover in layout.product_images.glob(".*.part"):
        leftover.unlink()


def _todo(config: Config, catalogue: Catalogue, state: ScrapeState, layout: Layout) -> list[tuple[Product, bool]]:
    """Return the products with work, each with whether its page is already read."""
    state.add_products(product.product_id for product in catalogue.products)
    if n_missing := state.reopen_missing(layout.root):
        logger.warning("%d pictures are gone from %s; they are fetched again", n_missing, layout.product_images)
    wanted = set(state.reopen_failed()) if config.retry_failed else None
    records = state.products()
    todo = [
        (product, records[product.product_id].status == "listed")
        for product in catalogue.products
        if records[product.product_id].status in ("pending", "listed")
        and (wanted is None or product.product_id in wanted)
    ]
    return todo[: config.limit]


def _collect(config: Config, todo: list[tuple[Product, bool]], state: ScrapeState, layout: Layout) -> int:
    """Work on all products; return the number of requests. Interrupted, it leaves what is done in the state."""
    shop = Shop(_stand_in(config))
    allow_private = config.allow_private or _is_loopback(config.shop_url)
    with (
        Web(config.contact, delay_s=config.delay_s, allow_private=allow_private) as web,
        ThreadPoolExecutor(config.workers) as pool,
    ):
        collector = Collector(web, state, layout, shop)
        try:
            futures = [pool.submit(collector.collect, product, is_listed=is_listed) for product, is_listed in todo]
            outcomes = (future.result() for future in as_completed(futures))
            _watch(tqdm(outcomes, "scrape", len(futures), unit="product", disable=None))
        except BaseException:
            web.stop()
            pool.shutdown(wait=False, cancel_futures=True)
            raise
        return web.n_requests


def _watch(outcomes: Iterable[Failure | None]) -> None:
    """Draw all outcomes; raises StageError when trouble with the shop does not end."""
    in_a_row: Counter[str] = Counter()
    for failure in outcomes:
        if failure is not None and (failure.reason in _TROUBLE or failure.reason.startswith("http_5")):
            in_a_row[failure.reason] += 1
        else:
            in_a_row.clear()
        if in_a_row.total() >= MAX_TROUBLE_IN_A_ROW:
            raise StageError(
                f"{in_a_row.total()} products in a row failed ({_listed(in_a_row)}): the shop or the network is "
                "down, or it does not want to be read.\nLater: `python src/scrape.py --retry-failed`, then without."
            )


def _write(catalogue: Catalogue, state: ScrapeState, layout: Layout, n_requests: int) -> Summary:
    """Write both tables and return what they come to."""
    records, images = state.products(), state.images()
    saved = scrape_tables.image_rows(catalogue, images)
    failures = scrape_tables.failure_rows(catalogue, records, images)
    IMAGES.write(layout.images_table, saved)
    FAILURES.write(layout.failures_table, failures)
    counts = scrape_tables.counts(catalogue, records)
    n_products = len(catalogue.products)
    coverage = counts["scraped"] / n_products if n_products else 0.0
    results = {
        "n_products": n_products,
        "n_images": len(saved),
        "n_requests": n_requests,
        "coverage": round(coverage, 4),
        **scrape_tables.figures(catalogue, records, failures),
        "reference": reference.SCRAPING,
    }
    return Summary(_headline(counts, results), counts, results)


def _headline(counts: dict[str, int], results: dict[str, Any]) -> str:
    published = f"{reference.SCRAPING['scraped']} of {reference.SCRAPING['products']:,} published for the reference"
    return (
        f"scraped {counts['scraped']:,} of {results['n_products']:,} products ({results['coverage']:.1%}; "
        f"{published}), "
        f"{results['n_images']:,} pictures; not scraped: {_listed(results['failures_by_reason'])}; "
        f"failed pictures: {_listed(results['image_failures_by_reason'])}"
    )


def _listed(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{reason} {n}" for reason, n in sorted(counts.items())) or "none"


def main() -> None:
    """Run the stage from the command line."""
    stage.main("scrape", Config, run)


if __name__ == "__main__":
    main()
