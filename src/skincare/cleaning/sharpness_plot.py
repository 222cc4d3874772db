"""The histogram of the sharpness of images."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from skincare import plot_style
from skincare.cleaning.quality import Sharpness
from skincare.plot_style import BLUE, GREY, ORANGE


def draw_blur_histogram(sharpness: Sequence[Sharpness], threshold: float, path: Path) -> None:
    """Draw the sharpness of the images, the threshold, and the share of images that other thresholds keep."""
    figure, axes = plot_style.new_figure("Sharpness of all images that could be read")
    content = np.maximum([one.content for one in sharpness], 1e-1)
    plain = np.maximum([one.plain for one in sharpness], 1e-1)
    top = max(1e3, float(content.max(initial=1.0)), float(plain.max(initial=1.0)))
    bins = np.geomspace(1e-1, top * 1.05, 50)
    counts, frame_counts = (np.histogram(values, bins)[0] for values in (content, plain))
    axes.stairs(counts, bins, fill=True, color=BLUE, alpha=0.75, label="content, normalised size and contrast (used)")
    axes.stairs(frame_counts, bins, color=GREY, linewidth=1.5, label="whole frame (as in the reference experiment)")
    axes.axvline(threshold, color=ORANGE, linewidth=2)
    for other in (20, 40, 60, 80, 100, 150):
        if other != threshold:
            axes.axvline(other, color=GREY, linewidth=0.6, linestyle=":")
    kept = "\n".join(
        f"threshold {value:g}: keeps {np.mean(content >= value):.1%}" + ("   <- used" if value == threshold else "")
        for value in sorted({20.0, 40.0, 60.0, 80.0, 100.0, 150.0, threshold})
    )
    axes.text(0.02, 0.72, kept, transform=axes.transAxes, va="top", family="monospace", fontsize=8)
    axes.set_xscale("log")
    axes.set(xlabel="variance of the Laplacian (squared grey levels, log scale)", ylabel="images")
    axes.legend(loc="upper left", fontsize=8)
    plot_style.save(figure, path)
