"""The reliability diagram and the risk-coverage curve."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from matplotlib.ticker import PercentFormatter

from skincare import plot_style
from skincare.plot_style import BLUE, GREY, ORANGE


def draw_confidence(confidence: Mapping[str, Any], path: Path) -> None:
    """Draw the reliability diagram and the risk-coverage curve."""
    figure, (left, right) = plot_style.new_panels(2, width=10, height=4.2)
    bins, points = confidence["reliability"], confidence["risk_coverage"]
    left.plot([0, 1], [0, 1], color=GREY, linestyle="--", linewidth=1, label="perfect calibration")
    left.plot([one["confidence"] for one in bins], [one["accuracy"] for one in bins], "o-", color=BLUE, label="test")
    left.set_title(f"Reliability: calibration error {confidence['ece']:.1%}", loc="left", fontweight="bold")
    left.set(xlabel="confidence, equal number of images per point", ylabel="accuracy", xlim=(0, 1), ylim=(0, 1))
    left.legend(loc="upper left")
    # "pre": the risk of a point holds for the coverage that leads up to it, as in its area.
    right.step([one["coverage"] for one in points], [one["risk"] for one in points], where="pre", color=BLUE)
    for one, marker in zip(
        [one for one in confidence["wanted"] if one["test_risk"] is not None], "os^vD", strict=False
    ):
        right.plot(
            one["test_coverage"],
            one["test_risk"],
            marker,
            color=ORANGE,
            markersize=8,
            label=f"threshold {one['threshold']:.2f}, chosen on val for a risk of at most {one['wanted_risk']:.0%}",
        )
    if right.get_legend_handles_labels()[0]:
        right.legend(loc="upper left", fontsize=8)
    right.set_title("Risk and coverage of abstention", loc="left", fontweight="bold")
    right.set(xlabel="coverage", ylabel="risk", xlim=(0, 1), ylim=(0, 1))
    for axes in (left, right):
        axes.xaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
        axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    plot_style.save(figure, path)
