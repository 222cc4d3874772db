"""The plot of a scrape: failures by reason, coverage by category, fetches over time."""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from skincare import plot_style
from skincare.collecting.scrape_log import FailureGroup, Throughput, is_worth_a_retry
from skincare.plot_style import BLUE, GREEN, GREY, ORANGE

# The text lists all reasons.
_MAX_REASONS: Final = 12


def draw_scrape_summary(
    groups: Sequence[FailureGroup], coverage: Mapping[str, Sequence[int]], speed: Throughput, path: Path
) -> None:
    """Draw three panels; `coverage` is category -> (scraped, products)."""
    figure, (left, middle, right) = plot_style.new_panels(3, width=15, height=4.8)
    _draw_failures(left, groups)
    _draw_coverage(middle, coverage)
    right.step([s for s, _ in speed.progress], [n for _, n in speed.progress], where="post", color=BLUE)
    right.set_title(f"Fetches: {speed.fetches_per_s:.1f} a second", loc="left", fontweight="bold")
    right.set(
        xlabel="seconds, without gaps over two minutes", ylabel="pages and images", xlim=(0, None), ylim=(0, None)
    )
    plot_style.save(figure, path)


def _draw_failures(axes: Any, groups: Sequence[FailureGroup]) -> None:
    n_by_reason: Counter[tuple[str, str]] = Counter()
    for group in groups:
        n_by_reason[group.what, group.reason] += group.n
    shown = n_by_reason.most_common(_MAX_REASONS)[::-1]
    for is_passing, colour, label in ((True, ORANGE, "worth --retry-failed"), (False, GREY, "permanent")):
        rows = [(f"{reason} ({what})", n) for (what, reason), n in shown if is_worth_a_retry(reason) == is_passing]
        bars = axes.barh([name for name, _ in rows], [n for _, n in rows], color=colour, label=label)
        axes.bar_label(bars, padding=3)
    axes.set_title(f"Failures: {n_by_reason.total():,}", loc="left", fontweight="bold")
    axes.grid(axis="y", visible=False)
    axes.margins(x=0.12)
    if shown:
        axes.legend(loc="lower right")


def _draw_coverage(axes: Any, coverage: Mapping[str, Sequence[int]]) -> None:
    names = sorted(coverage, key=lambda name: coverage[name][0] / coverage[name][1])
    shares = [coverage[name][0] / coverage[name][1] for name in names]
    bars = axes.barh(names, shares, color=GREEN)
    axes.bar_label(bars, ["{} of {}".format(*coverage[name]) for name in names], padding=3, fontsize=8)
    axes.set_title("Products scraped", loc="left", fontweight="bold")
    axes.set_xlim(0, 1.25)
    axes.set_xticks([0, 0.25, 0.5, 0.75, 1], ["0%", "25%", "50%", "75%", "100%"])
    axes.grid(axis="y", visible=False)
