"""The confusion matrix as a plot."""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from skincare import plot_style
from skincare.evaluation.metrics import Scores
from skincare.labels import UNKNOWN
from skincare.plot_style import GREY


def draw_confusion_matrix(scores: Scores, title: str, path: Path) -> None:
    """Draw counts of true against predicted categories, coloured by share of the row; last column: no category."""
    counts = np.array(scores.confusion)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    low, high = scores.accuracy_low, scores.accuracy_high
    figure, axes = plot_style.new_figure(
        f"{title}: {scores.accuracy:.1%} correct ({low:.1%} to {high:.1%}, n = {scores.n})", width=8.2, height=7
    )
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1, aspect="auto")
    names = [one.category for one in scores.categories]
    columns = (*names, UNKNOWN)
    axes.set_xticks(range(len(columns)), columns, rotation=45, ha="right", rotation_mode="anchor")
    axes.set_yticks(range(len(names)), [f"{name} ({n})" for name, n in zip(names, counts.sum(axis=1), strict=True)])
    axes.set(xlabel="predicted category", ylabel="true category (images)")
    axes.grid(visible=False)
    axes.axvline(len(names) - 0.5, color=GREY, linewidth=1)
    _write_cells(axes, counts, shares)
    plot_style.save(figure, path)


def _write_cells(axes: Any, counts: npt.NDArray[Any], shares: npt.NDArray[Any]) -> None:
    for row, column in np.argwhere(counts):
        colour = "white" if shares[row, column] > 0.55 else "#111827"
        axes.text(column, row, str(counts[row, column]), ha="center", va="center", color=colour, fontsize=8)
