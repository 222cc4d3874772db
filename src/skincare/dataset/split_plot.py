"""The bar chart of the dataset's splits."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from skincare import plot_style
from skincare.paths import SPLITS
from skincare.plot_style import BLUE, GREEN, ORANGE


def draw_dataset_split(counts: Mapping[str, Mapping[str, int]], categories: Sequence[str], path: Path) -> None:
    """Draw images per category and split; `counts` is split -> category -> images."""
    figure, axes = plot_style.new_figure("Images per category and split", height=5)
    totals = {category: sum(counts[split].get(category, 0) for split in SPLITS) for category in categories}
    ordered = sorted(categories, key=lambda category: totals[category])
    left = np.zeros(len(ordered))
    for split, colour in zip(SPLITS, (BLUE, GREEN, ORANGE), strict=True):
        widths = np.array([counts[split].get(category, 0) for category in ordered])
        bars = axes.barh(ordered, widths, left=left, color=colour, label=f"{split} ({widths.sum():,})")
        axes.bar_label(bars, [str(n) if n else "" for n in widths], label_type="center", color="white", fontsize=8)
        left += widths
    axes.grid(axis="y", visible=False)
    axes.set_xlabel("images")
    axes.legend(loc="lower right")
    plot_style.save(figure, path)
