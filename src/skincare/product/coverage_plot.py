"""The plot of how many products have each field, by the source of its value."""

from collections.abc import Mapping
from pathlib import Path
from typing import Final

from skincare import plot_style

_COLOURS: Final = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#F0E442", "#6B7280")


def draw_coverage(coverage: Mapping[str, Mapping[str, int]], n_products: int, path: Path) -> None:
    """Draw one bar per field, in parts by source; coverage: field -> source -> number of products."""
    fields = list(coverage)[::-1]
    sources = sorted({source for counts in coverage.values() for source in counts})
    figure, axes = plot_style.new_panels(1, width=9, height=4.8)
    start = [0] * len(fields)
    for i, source in enumerate(sources):
        counts = [coverage[field].get(source, 0) for field in fields]
        axes.barh(fields, counts, left=start, color=_COLOURS[i % len(_COLOURS)], label=source)
        start = [before + n for before, n in zip(start, counts, strict=True)]
    for row, total in enumerate(start):
        axes.text(total + 0.01 * n_products, row, f"{total / max(n_products, 1):.0%}", va="center", fontsize=9)
    axes.set_title(f"Products with a known value, of {n_products:,}", loc="left", fontweight="bold")
    axes.set_xlim(0, 1.12 * max(n_products, 1))
    axes.grid(axis="y", visible=False)
    if sources:
        axes.legend(title="source", loc="center left", bbox_to_anchor=(1, 0.5))
    plot_style.save(figure, path)
