"""Collect the photos of a catalogue's products from the shop's pages.

In: csv_data/skincare_products_clean.csv; with --source another catalogue, or the list that the source returns. Such a
list is written to csv_data/products_<source>*.csv, which is then the --catalogue of the stages that follow.
Out: product_images/; csv_data/images_id_full.csv (the images on disk, with licence and attribution);
csv_data/products_metadata.csv (name, brand, price, ingredients ..., with the source of each field);
csv_data/scrape_failures.csv (what could not be collected, with a reason); csv_data/scrape_state.sqlite (the state of
every product and image).
Command: python src/scrape.py --contact you@example.org
         python src/scrape.py --shop-url http://127.0.0.1:8000      another host, such as the sample shop
         python src/scrape.py --source web_page --catalogue my_products.csv --contact you@example.org
         python src/scrape.py --source open_beauty_facts --query en:face-creams --contact you@example.org
Time: with the default delay about half an hour for the 1,126 pages of the real catalogue and their images; seconds for
the 200 products of the sample.

Stop the run at any time: the same command continues it and fetches nothing twice.
"""

import dataclasses
import ipaddress
import logging
from collections import Counter, defaultdict
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from tqdm import tqdm

from skincare import reference_experiment, runlog, stage, urls
from skincare.catalogue import Catalogue, Problem, read_products
from skincare.collecting import listing, scrape_refresh, scrape_tables, scrape_work
from skincare.collecting.collector import Collector, UrlMapping
from skincare.collecting.host_pools import FailureMonitor, HostPools
from skincare.collecting.http_client import HttpClient
from skincare.collecting.scrape_refresh import Refresher
from skincare.collecting.scrape_state import ScrapeState
from skincare.collecting.sources import DEFAULT_SOURCE, source_named
from skincare.errors import StageError
from skincare.labels import labels_of
from skincare.paths import Layout
from skincare.runlog import Summary, counts_text
from skincare.tables import FAILURES, IMAGES, METADATA

logger = logging.getLogger(__name__)

# Problems of the catalogue that the log names one by one; those without a product are all in scrape_failures.csv.
_MAX_LOGGED: Final = 1000


@dataclass(frozen=True, kw_only=True)
class Config(stage.StageConfig):
    """Options of the stage."""

    catalogue: Path | None = None
    """Catalogue to read instead of csv_data/skincare_products_clean.csv."""
    source: str = ""
    """Source of the products: lookfantastic (the default), web_page or open_beauty_facts."""
    query: str = ""
    """Category tags to list from a searchable source, separated by commas."""
    shop_url: str = ""
    """Fetch from this scheme and host instead of the products' own; a loopback host implies --allow-private."""
    workers: int = 10
    """Maximum number of concurrent products and requests per host."""
    delay_s: float = 0.5
    """Minimum delay between two requests to a host; longer with a Crawl-delay, or if the host is slow or busy."""
    contact: str = ""
    """E-mail or web address for the User-Agent header, so that the shop can reach you."""
    retry_failed: bool = False
    """Retry only the products and images that failed before."""
    refresh: bool = False
    """Also refresh collected products: replace what changed, keep what is unchanged or gone."""
    limit: int | None = None
    """Maximum number of products to process in this run."""
    allow_private: bool = False
    """Also fetch from loopback and private addresses."""


def run(config: Config, layout: Layout) -> Summary:
    """Collect the remaining products, then write the tables from the state."""
    _check(config)
    try:
        return _run(config, layout)
    except OSError as error:
        where = error.filename or layout.root
        remedy = f"Nothing is lost: fix this and continue with `{runlog.command()}`."
        raise StageError(f"{where}: {error.strerror or error}\n{remedy}") from error


def _run(config: Config, layout: Layout) -> Summary:
    path = _catalogue_path(config, layout)
    catalogue = read_products(path, labels_of(layout))
    _log_problems(catalogue)
    if not catalogue.products:
        # An earlier run's tables would lose all their rows.
        raise StageError(f"{path}: none of {catalogue.n_rows:,} rows is a usable product; nothing was changed")
    sources = sorted({one.source or config.source or DEFAULT_SOURCE for one in catalogue.products})
    _check_contact(config, sources)
    n_rows, problems, rejected = catalogue.n_rows, catalogue.problems, catalogue.rejected
    with ScrapeState(layout.scrape_state) as state:
        runlog.remove_summary("scrape", layout)
        _remove_leftovers(layout)
        state.set_catalogue(catalogue.products)
        # The state holds it from here on.
        del catalogue
        abandoned, n_requests = _collect(config, _plan(config, state, layout), sources, state, layout)
        IMAGES.write(layout.images_table, scrape_tables.image_rows(state), is_sorted=True)
        METADATA.write(layout.metadata_table, scrape_tables.metadata_rows(state), is_sorted=True)
        FAILURES.write(layout.failures_table, scrape_tables.failure_rows(rejected, state), is_sorted=True)
        if abandoned:
            raise StageError(
                "\n".join(abandoned) + ": the shop or the network is down, or the shop refuses requests.\n"
                f"Later, run `{runlog.command(add='--retry-failed')}`, then the same without --retry-failed."
            )
        summary = _summary(state, problems, n_rows, n_requests, is_refresh=config.refresh)
        return _compared(summary) if sources == [DEFAULT_SOURCE] else summary


def _log_problems(catalogue: Catalogue) -> None:
    for problem in catalogue.problems[:_MAX_LOGGED]:
        logger.warning("catalogue row %d: %s: %s", problem.row, problem.reason, problem.detail)
    if len(catalogue.problems) > _MAX_LOGGED:
        counts = Counter[str](one.reason for one in catalogue.problems)
        logger.warning("... and more, of %d problems: %s", counts.total(), counts_text(counts))


def _check(config: Config) -> None:
    if config.workers < 1 or config.delay_s < 0 or (config.limit is not None and config.limit < 0):
        raise StageError("--workers must be at least 1, --delay-s and --limit at least 0")
    if config.retry_failed and config.refresh:
        raise StageError("--retry-failed and --refresh cannot be combined: run one after the other")
    if not (config.contact.isascii() and config.contact.isprintable()):
        raise StageError("--contact must be plain text: it is sent in a header")
    if config.shop_url:
        _base_url(config)
    elif not config.contact:
        logger.warning("no --contact given: a shop that objects to this run can only block it")


def _base_url(config: Config) -> str | None:
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


def _client(config: Config, delay_s: float) -> HttpClient:
    allow_private = config.allow_private or _is_loopback(config.shop_url)
    return HttpClient(config.contact, delay_s=delay_s, concurrency=config.workers, allow_private=allow_private)


def _catalogue_path(config: Config, layout: Layout) -> Path:
    """Return the catalogue to read; with --source, the one that the source lists or converts."""
    given = config.catalogue or layout.catalogue
    if not config.source:
        return given
    source = source_named(config.source)
    # Check before the list of an earlier run is replaced.
    _check_contact(config, [config.source])
    if not config.query:
        return listing.adopt_catalogue(source, given, layout)
    delay_s = config.delay_s if config.shop_url else max(config.delay_s, listing.delay_s(source))
    with _client(config, delay_s) as client:
        return listing.list_products(
            source, config.query, UrlMapping(_base_url(config), tuple(source.delays_s)), client, layout
        )


def _check_contact(config: Config, sources: Sequence[str]) -> None:
    for name in sources:
        if source_named(name).needs_contact and not (config.contact or config.shop_url):
            raise StageError(f"{name} requires an e-mail or web address: set --contact")


def _remove_leftovers(layout: Layout) -> None:
    """Remove temporary files of a killed run; the state's lock guarantees that no other run is writing."""
    for folder in (layout.product_images, layout.images_table.parent):
        for leftover in folder.glob(".*.part"):
            leftover.unlink()


def _plan(config: Config, state: ScrapeState, layout: Layout) -> dict[str, int]:
    """Select the products to process; return their number by host."""
    if n_missing := scrape_work.reopen_missing(state, layout.root):
        logger.warning("%d images are missing from %s and are fetched again", n_missing, layout.product_images)
    if config.refresh:
        scrape_refresh.begin(state)
        return scrape_work.plan(state, "stale", config.limit)
    return scrape_work.plan(state, "failed" if config.retry_failed else "open", config.limit)


def _collect(
    config: Config, n_by_host: dict[str, int], sources: Sequence[str], state: ScrapeState, layout: Layout
) -> tuple[list[str], int]:
    """Process the selected products; return the reasons for abandoned hosts and the number of requests.

    An interrupted run leaves its results in the state.
    """
    delays_s = {origin: s for name in sources for origin, s in source_named(name).delays_s.items()}
    with _client(config, config.delay_s) as client:
        for origin, delay_s in delays_s.items():
            client.raise_min_delay(origin, delay_s)
        url_mapping = UrlMapping(_base_url(config), tuple(delays_s))
        collector = Collector(client, state, layout, url_mapping, config.source or DEFAULT_SOURCE)
        host_pools = HostPools(
            {host: scrape_work.work_items(state, host) for host in n_by_host},
            {host: min(config.workers, n) for host, n in n_by_host.items()},
            Refresher(collector).process if config.refresh else collector.collect,
            client.stop,
        )
        bar = tqdm(total=sum(n_by_host.values()), desc="scrape", unit="product", disable=None)
        with bar, closing(host_pools.outcomes()) as outcomes:
            monitors: dict[str, FailureMonitor] = defaultdict(FailureMonitor)
            abandoned: dict[str, str] = {}
            for outcome in outcomes:
                bar.update()
                if outcome.host not in abandoned and (message := monitors[outcome.host].record(outcome.failure)):
                    abandoned[outcome.host] = f"{outcome.host}: {message}"
                    host_pools.abandon(outcome.host)
        return list(abandoned.values()), client.n_requests


def _summary(
    state: ScrapeState, problems: Sequence[Problem], n_rows: int, n_requests: int, *, is_refresh: bool
) -> Summary:
    counts = scrape_tables.counts(state)
    n_products = sum(counts.values())
    results = {
        "n_products": n_products,
        "n_requests": n_requests,
        "coverage": round(counts["scraped"] / n_products if n_products else 0.0, 4),
        **scrape_tables.figures(problems, state),
        "metadata_coverage": scrape_tables.metadata_coverage(state),
        "catalogue_rows": n_rows,
    }
    headline = _headline(counts, results)
    if is_refresh:
        results["refresh"] = scrape_refresh.figures(state)
        headline += "".join(f"; {what}: {counts_text(found)}" for what, found in results["refresh"].items())
    return Summary(headline, counts, results)


def _headline(counts: dict[str, int], results: dict[str, Any]) -> str:
    return (
        f"scraped {counts['scraped']:,} of {results['n_products']:,} products ({results['coverage']:.1%}), "
        f"{results['n_images']:,} images; not scraped: {counts_text(results['failures_by_reason'])}; "
        f"failed images: {counts_text(results['image_failures_by_reason'])}"
    )


def _compared(summary: Summary) -> Summary:
    """Add the published result of the reference experiment to the summary of a catalogue of the same size."""
    published = reference_experiment.SCRAPING
    if summary.results["n_products"] != published["products"]:
        return summary
    comparison = f"{published['scraped']} of {published['products']:,} published for the reference experiment"
    headline = summary.headline.replace("%),", f"%; {comparison}),", 1)
    return dataclasses.replace(summary, headline=headline, results={**summary.results, "reference": published})


def main() -> None:
    """Run the stage from the command line."""
    stage.main("scrape", Config, run)


if __name__ == "__main__":
    main()
