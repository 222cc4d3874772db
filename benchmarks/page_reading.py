"""Accuracy and speed of the page parser on real pages of many shops, next to published results.

The pages are the public product-extraction-benchmark of Scrapinghub (now Zyte), or a folder of the same form: pages.csv
with the columns file, url, price and brand (alternatives separated by `|`, empty: none) and the page files, gzipped
or plain. Metrics follow the publication: precision over pages with a prediction, recall over pages with a true value;
prices are compared as numbers, brands case-insensitively.

The published truth holds prices as typed by its annotators: 24.990 Chilean pesos are 24.99. The parser returns 24990.
The strict metric counts this as an error; the other counts it as correct if the currency has no decimals in use.

As an estimate for other shops, the pages are also parsed with parts removed: without classes and ids, and without
structured data (scripts, microdata, RDFa).

Out: benchmarks/results/page_reading.json and a table; with --show also every page with an error.
Command: python benchmarks/page_reading.py --pages FOLDER [--show]
Time: 30 seconds for 71 pages.
"""

import csv
import gzip
import logging
import re
import resource
import statistics
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any, Final

import tyro

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(REPOSITORY / "src"))

from skincare.collecting.pages import ProductPage, parse_product_page
from skincare.files import write_json
from skincare.runlog import environment

logger = logging.getLogger("page_reading")

# Source: README of the benchmark, 140 pages; and its published outputs scored on the 71 pages of 26 of its sites.
PUBLISHED: Final = {
    "140 pages": {"price": {"extruct": 0.685, "Diffbot": 0.824, "Zyte": 0.918}},
    "71 pages": {
        "price": {"extruct": 0.50, "Diffbot": 0.79, "Zyte": 0.91},
        "brand": {"Diffbot": 0.63, "Zyte": 0.73},
    },
}
# Currencies without decimals in use, whose shops write 24.990.
_WHOLE: Final = frozenset(["CLP", "COP", "PYG", "IDR", "VND", "KRW", "ISK"])


_NAMES: Final = re.compile(rb"\s(class|id)=(\"[^\"]*\"|'[^']*')")
_SCRIPTS: Final = re.compile(rb"(?is)<script.*?</script>")
_STATEMENTS: Final = re.compile(rb"(?i)\s(itemprop|itemscope|itemtype|property|typeof)(=\"[^\"]*\")?")


@dataclass(frozen=True)
class Config:
    """Options of the benchmark."""

    pages: Path
    """Folder with pages.csv and the page files."""
    show: bool = False
    """Also list the pages with an error."""
    repeats: int = 3
    """Repetitions per page; the fastest counts."""
    out: Path = REPOSITORY / "benchmarks" / "results" / "page_reading.json"
    """Output file."""


@dataclass
class Score:
    """Counts of one field: correct, wrong, and true values that were missed."""

    correct: int = 0
    wrong: int = 0
    missed: int = 0

    def add(self, read: Any, stated: set[Any]) -> bool:
        """Count a page; return whether it has no error."""
        is_correct = read in stated
        self.correct += is_correct
        self.wrong += read is not None and not is_correct
        self.missed += bool(stated) and not is_correct
        return is_correct or (read is None and not stated)

    def figures(self) -> dict[str, float]:
        """Return precision, recall and F1."""
        precision = self.correct / (self.correct + self.wrong) if self.correct + self.wrong else 1.0
        recall = self.correct / (self.correct + self.missed) if self.correct + self.missed else 1.0
        f1 = 2 * precision * recall / (precision + recall) if precision + recall else 0.0
        return {"precision": round(precision, 3), "recall": round(recall, 3), "f1": round(f1, 3)}


@dataclass
class Tally:
    """Counts over all pages."""

    price: Score = field(default_factory=Score)
    price_strict: Score = field(default_factory=Score)
    brand: Score = field(default_factory=Score)
    kinds: Counter[str] = field(default_factory=Counter)
    sources: Counter[str] = field(default_factory=Counter)
    n_with_image: int = 0
    seconds: list[float] = field(default_factory=list)


def main() -> None:
    """Parse and score all pages; write the results."""
    config = tyro.cli(Config, description=__doc__)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    tally, reduced = Tally(), {name: Tally() for name in REDUCTIONS}
    for row, content in read_rows(config.pages):
        page, seconds = timed(content, row["url"], config.repeats)
        tally.seconds.append(seconds)
        wrong = rate(tally, row, page)
        if config.show and wrong:
            logger.info("%s %s", row["url"][:90], "; ".join(wrong))
        for name, reduce in REDUCTIONS.items():
            page, seconds = timed(reduce(content), row["url"], 1)
            reduced[name].seconds.append(seconds)
            rate(reduced[name], row, page)
    result = figures(tally)
    less = {name: figures(one) for name, one in reduced.items()}
    write_json(config.out, {"pages": result, "reduced": less, "published": PUBLISHED, **environment()})
    for line in table(result):
        logger.info("%s", line)
    for name, one in less.items():
        logger.info(
            "%s: %.1f%% read, price F1 %.3f, brand F1 %.3f",
            name, 100 * one["read_with_image"], one["price"]["f1"], one["brand"]["f1"],
        )  # fmt: skip


def without_names(content: bytes) -> bytes:
    """Return a page without classes and ids."""
    return _NAMES.sub(b"", content)


def without_statements(content: bytes) -> bytes:
    """Return a page without scripts, microdata and RDFa."""
    return _STATEMENTS.sub(b"", _SCRIPTS.sub(b"", content))


REDUCTIONS: Final = {"without classes and ids": without_names, "without what is stated": without_statements}


def read_rows(folder: Path) -> Iterator[tuple[dict[str, str], bytes]]:
    """Yield the rows of a folder's pages.csv, each with the bytes of its page."""
    with (folder / "pages.csv").open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            content = (folder / row["file"]).read_bytes()
            yield row, gzip.decompress(content) if row["file"].endswith(".gz") else content


def timed(content: bytes, url: str, repeats: int) -> tuple[ProductPage, float]:
    """Return the parsed page and the CPU seconds of the fastest repetition."""
    seconds = []
    for _ in range(max(1, repeats)):
        started = time.process_time()
        page = parse_product_page(content, url)
        seconds.append(time.process_time() - started)
    return page, min(seconds)


def rate(tally: Tally, row: dict[str, str], page: ProductPage) -> list[str]:
    """Count a page; return its errors as text."""
    tally.kinds[page.kind] += 1
    tally.n_with_image += bool(page.is_product_page and page.image_urls)
    facts = page.metadata
    wrong = [] if page.image_urls else [f"{page.kind}, no image"]
    stated = {Decimal(value) for value in _values(row["price"]) if _is_number(value)}
    read = Decimal(facts["price"].value) if "price" in facts else None
    tally.price_strict.add(read, stated)
    # Without a currency, the amount may be one without decimals.
    may_be_whole = "currency" not in facts or facts["currency"].value in _WHOLE
    meant = stated | ({value * 1000 for value in stated} if may_be_whole else set())
    if not tally.price.add(read, meant):
        wrong.append(f"price {row['price'] or 'none'}, read {facts.get('price')}")
    brand = _plain(facts["brand"].value) if "brand" in facts else None
    if not tally.brand.add(brand, {_plain(value) for value in _values(row["brand"])}):
        wrong.append(f"brand {row['brand'] or 'none'}, read {facts.get('brand')}")
    for name in ("price", "brand"):
        tally.sources[f"{name}: {facts[name].source if name in facts else 'none'}"] += 1
    tally.sources[f"image: {page.source}"] += 1
    return wrong


def figures(tally: Tally) -> dict[str, Any]:
    """Return the metrics of the counts."""
    n = len(tally.seconds)
    return {
        "n_pages": n,
        "read_with_image": round(tally.n_with_image / n, 3) if n else 0.0,
        "kinds": dict(sorted(tally.kinds.items())),
        "price": tally.price.figures(),
        "price_strict": tally.price_strict.figures(),
        "brand": tally.brand.figures(),
        "sources": dict(sorted(tally.sources.items())),
        "median_ms": round(1000 * statistics.median(tally.seconds), 1) if n else 0.0,
        "slowest_ms": round(1000 * max(tally.seconds), 1) if n else 0.0,
        "peak_memory_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
    }


def table(result: dict[str, Any]) -> Iterator[str]:
    """Yield the lines of the table, with the published results."""
    yield f"{result['n_pages']} pages: {result['read_with_image']:.1%} read as product pages with an image"
    yield f"{'':24}{'precision':>10}{'recall':>8}{'F1':>8}"
    for name, label in (("price", "price"), ("price_strict", "price, strict"), ("brand", "brand")):
        row = result[name]
        yield f"{label:24}{row['precision']:>10.3f}{row['recall']:>8.3f}{row['f1']:>8.3f}"
    for pages, fields in PUBLISHED.items():
        for name, systems in fields.items():
            said = ", ".join(f"{system} {f1}" for system, f1 in systems.items())
            yield f"published, {name}, {pages}: {said}"
    yield f"median {result['median_ms']} ms a page on one core, slowest {result['slowest_ms']} ms"


def _values(text: str) -> list[str]:
    return [value.strip() for value in text.split("|") if value.strip()]


def _is_number(text: str) -> bool:
    try:
        return Decimal(text).is_finite()
    except InvalidOperation:
        return False


def _plain(text: str) -> str:
    return " ".join(text.split()).casefold()


if __name__ == "__main__":
    main()
