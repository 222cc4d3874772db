"""Statistics of a scrape, finished or not: failures, what to retry, time per host, throughput."""

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final
from urllib.parse import urlsplit

from skincare.collecting.scrape_state import ScrapeStateReader

# Reasons that a retry can resolve; all others are permanent.
_TRANSIENT_REASONS: Final = {
    "connection_error",
    "timeout",
    "too_slow",
    "challenge",
    "no_image_saved",
    "truncated",
    "corrupt",
}
_TRANSIENT_STATUSES: Final = {"http_403", "http_408", "http_425", "http_429"}
N_EXAMPLES: Final = 3
# A longer gap is a pause between two runs or a Retry-After, not active time.
_GAP_S: Final = 120.0


@dataclass(frozen=True)
class FailureGroup:
    """Failures with one reason at one host; `what` is product or image."""

    what: str
    host: str
    reason: str
    n: int
    is_worth_a_retry: bool
    examples: tuple[str, ...]


@dataclass(frozen=True)
class HostTime:
    """Fetches from one host; `median_s` and `p95_s` are quantiles of the time per fetch."""

    host: str
    n_fetches: int
    n_tries: int
    seconds: float
    median_s: float
    p95_s: float


@dataclass(frozen=True)
class Throughput:
    """Fetches per second of active time: gaps of more than two minutes, as between two runs, are excluded."""

    n_fetches: int
    active_s: float
    # (seconds of active time, fetches so far), in about 200 steps.
    progress: tuple[tuple[float, int], ...]

    @property
    def fetches_per_s(self) -> float:
        """Return the mean over the active time."""
        return self.n_fetches / self.active_s if self.active_s else 0.0


def is_worth_a_retry(reason: str) -> bool:
    """Return whether --retry-failed can resolve a failure: transient errors, not missing pages."""
    return reason in _TRANSIENT_REASONS | _TRANSIENT_STATUSES or reason.startswith("http_5")


def failure_groups(state: ScrapeStateReader) -> list[FailureGroup]:
    """Return the failures by kind, host and reason, most frequent first."""
    found: dict[tuple[str, str, str], int] = defaultdict(int)
    examples: dict[tuple[str, str, str], list[str]] = defaultdict(list)
    for what, url, reason in _failures(state):
        key = (what, _host(url), reason)
        found[key] += 1
        if len(examples[key]) < N_EXAMPLES:
            examples[key].append(url)
    return [
        FailureGroup(*key, n, is_worth_a_retry(key[2]), tuple(examples[key]))
        for key, n in sorted(found.items(), key=lambda item: (-item[1], item[0]))
    ]


def host_times(state: ScrapeStateReader) -> list[HostTime]:
    """Return the time spent on each host, longest first."""
    seconds: dict[str, list[float]] = defaultdict(list)
    tries: dict[str, int] = defaultdict(int)
    for url, attempts, took in _fetches(state, "attempts", "seconds"):
        seconds[_host(url)].append(took)
        tries[_host(url)] += attempts
    times = [
        HostTime(
            host, len(durations), tries[host], round(sum(durations), 3), _share(durations, 0.5), _share(durations, 0.95)
        )
        for host, durations in seconds.items()
    ]
    return sorted(times, key=lambda one: (-one.seconds, one.host))


def throughput(state: ScrapeStateReader) -> Throughput:
    """Return the number of fetches over the active time."""
    timestamps = sorted(datetime.fromisoformat(at).timestamp() for _, at in _fetches(state, "changed_at"))
    active_s, progress = 0.0, [(0.0, 0)]
    step = max(1, len(timestamps) // 200)
    for i, timestamp in enumerate(timestamps):
        gap_s = timestamp - timestamps[i - 1] if i else 0.0
        active_s += gap_s if gap_s < _GAP_S else 0.0
        if (i + 1) % step == 0:
            progress.append((round(active_s, 3), i + 1))
    return Throughput(len(timestamps), round(active_s, 3), tuple(progress))


def retries(groups: list[FailureGroup]) -> Mapping[str, Any]:
    """Return the number of failures that a retry may resolve, in total and by reason."""
    by_reason: dict[str, int] = defaultdict(int)
    for group in groups:
        if group.is_worth_a_retry:
            by_reason[group.reason] += group.n
    return {"n": sum(by_reason.values()), "by_reason": dict(sorted(by_reason.items()))}


def _failures(state: ScrapeStateReader) -> Iterator[tuple[str, str, str]]:
    yield from state.rows(
        "SELECT 'product', url, reason FROM products WHERE position IS NOT NULL AND status = 'failed' ORDER BY position"
    )
    yield from state.rows(
        "SELECT 'image', source_url, images.reason FROM images JOIN products USING (product_id) "
        "WHERE position IS NOT NULL AND images.status = 'failed' ORDER BY position, n"
    )


def _fetches(state: ScrapeStateReader, *columns: str) -> Iterator[tuple[Any, ...]]:
    """Yield the fetched URLs, each with these columns of its fetch record."""
    of_products, of_images = (", ".join(f"{table}.{column}" for column in columns) for table in ("products", "images"))
    yield from state.rows(f"SELECT url, {of_products} FROM products WHERE position IS NOT NULL AND attempts > 0")
    yield from state.rows(
        f"SELECT source_url, {of_images} FROM images JOIN products USING (product_id) "
        "WHERE position IS NOT NULL AND images.attempts > 0"
    )


def _host(url: str) -> str:
    return urlsplit(url).hostname or url


def _share(seconds: list[float], share: float) -> float:
    return round(sorted(seconds)[min(len(seconds) - 1, int(share * len(seconds)))], 3)
