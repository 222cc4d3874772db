"""Summarise a scrape: failures by host and reason, what to retry, time per host.

In: csv_data/scrape_state.sqlite of a finished, interrupted or running scrape.
Out: a text on standard output, plots/scrape_summary.png, log/scrape_summary.json.
Command: python src/scrape_summary.py
Time: seconds.
"""

import shlex
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

from skincare import runlog, stage
from skincare.collecting import scrape_log, scrape_tables
from skincare.collecting.scrape_log import FailureGroup, HostTime, Throughput
from skincare.collecting.scrape_plot import draw_scrape_summary
from skincare.collecting.scrape_state import ScrapeStateReader
from skincare.errors import MissingInputError
from skincare.paths import REPOSITORY, Layout
from skincare.runlog import Summary


@dataclass(frozen=True, kw_only=True)
class Config(stage.StageConfig):
    """Options of the stage."""

    resumes: ClassVar[bool] = False

    max_groups: int = 20
    """Number of failure groups in the text; the JSON holds all."""


def run(config: Config, layout: Layout) -> Summary:
    """Read the state; write the text, the plot and the JSON summary."""
    if not layout.scrape_state.is_file():
        raise MissingInputError("state of a scrape", layout.scrape_state, "Make it with `python src/scrape.py`.")
    with ScrapeStateReader(layout.scrape_state) as state:
        counts, figures = scrape_tables.counts(state), scrape_tables.figures([], state)
        groups, hosts = scrape_log.failure_groups(state), scrape_log.host_times(state)
        speed = scrape_log.throughput(state)
    coverage, retries = figures["coverage_by_category"], scrape_log.retries(groups)
    headline = (
        f"scraped {counts['scraped']:,} of {sum(counts.values()):,} products, {counts['failed']:,} failed, "
        f"{counts['not_tried']:,} not tried; {figures['n_images']:,} images; {speed.fetches_per_s:.1f} fetches/s"
    )
    lines = _lines(groups[: config.max_groups], coverage, hosts, speed, _advice(layout, counts, groups, retries))
    sys.stdout.write("".join(f"{line}\n" for line in lines))
    runlog.remove_summary("scrape_summary", layout)
    draw_scrape_summary(groups, coverage, speed, layout.plot("scrape_summary"))
    results = {
        "failures": [asdict(group) for group in groups],
        "coverage_by_category": coverage,
        "worth_a_retry": retries,
        "hosts": [asdict(host) for host in hosts],
        "throughput": {**asdict(speed), "fetches_per_s": round(speed.fetches_per_s, 3)},
    }
    return Summary(headline, counts, results)


def _advice(
    layout: Layout, counts: Mapping[str, int], groups: Sequence[FailureGroup], retries: Mapping[str, Any]
) -> list[str]:
    root = "" if layout.root == REPOSITORY else f" --root {shlex.quote(str(layout.root))}"
    command = f"python src/scrape.py{root}"
    advice = []
    if n_left := counts["not_tried"]:
        advice.append(
            f"`{command}` with the other options of the scrape resumes with the {n_left:,} remaining products."
        )
    if retries["n"]:
        reasons = ", ".join(f"{reason} {n}" for reason, n in retries["by_reason"].items())
        advice.append(f"`{command} --retry-failed` may resolve {retries['n']:,} failures ({reasons}).")
    if n_final := sum(group.n for group in groups) - retries["n"]:
        advice.append(f"{n_final:,} failures are permanent: gone, no image, or refused.")
    return advice or ["Nothing left to do."]


def _lines(
    groups: Sequence[FailureGroup], coverage: Mapping[str, Sequence[int]], hosts: Sequence[HostTime],
    speed: Throughput, advice: Sequence[str],
) -> Iterator[str]:  # fmt: skip
    yield "Failures"
    for group in groups:
        retry = "retry" if group.is_worth_a_retry else "final"
        yield f"  {group.n:7,}  {group.what:7}  {group.reason:20}  {retry}  {_plain(group.host)}"
        yield from (f"           {_plain(example)}" for example in group.examples)
    yield "Coverage"
    for category, (n_scraped, n_products) in coverage.items():
        yield f"  {category:12}  {n_scraped:6,} of {n_products:6,}  {n_scraped / n_products:6.1%}"
    yield f"Hosts ({speed.n_fetches:,} fetches in {speed.active_s:,.0f} active seconds)"
    for host in hosts:
        yield (
            f"  {_plain(host.host):30}  {host.n_fetches:7,} fetches  {host.n_tries:7,} tries  {host.seconds:9,.1f} s  "
            f"median {host.median_s:.3f} s  95 % below {host.p95_s:.3f} s"
        )
    yield "Next"
    yield from (f"  {line}" for line in advice)


def _plain(text: str) -> str:
    """Return untrusted text as one printable line."""
    return "".join(letter if letter.isprintable() else " " for letter in text)[:200]


def main() -> None:
    """Run the stage from the command line."""
    stage.main("scrape_summary", Config, run)


if __name__ == "__main__":
    main()
